"""What every service stands on. Knows no service."""

import sys

# httpx brings a command of its own, whose terminal libraries cost each of our processes 6 MiB. It does without them
# where they are not installed; ours are there for `headrace`, and this module is told that they are not.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
