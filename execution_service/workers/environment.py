"""The environment of worker processes: what programs need to run, what built-in types read, and what was named."""

import os
from collections.abc import Iterable

from execution_service.handlers.settings import HANDLER_VARIABLES

_BASIC = frozenset(
    {
        "HOME",
        "LANG",
        "LANGUAGE",
        "LD_LIBRARY_PATH",
        "LOGNAME",
        "PATH",
        "SSL_CERT_DIR",
        "SSL_CERT_FILE",
        "TMPDIR",
        "TZ",
        "USER",
        "VIRTUAL_ENV",
    }
)
_BASIC_BEGINNINGS = ("LC_", "PYTHON")


def worker_environment(named: Iterable[str] = ()) -> dict[str, str]:
    """Return the part of our environment that handlers may see.

    Everything else stays here: the services' own settings hold passwords, and so may anything that is not known.
    """
    wanted = {*named, *HANDLER_VARIABLES, *_BASIC}
    return {name: value for name, value in os.environ.items() if name in wanted or name.startswith(_BASIC_BEGINNINGS)}
