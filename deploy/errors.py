"""How the tools of this folder fail: with one line that says what is wrong, and an exit status."""

import signal
import sys
from collections.abc import Callable


class DeployError(Exception):
    """What the tool was asked for did not happen. The message is for whoever runs it."""


def run_tool(main: Callable[[], None]) -> None:
    """Run `main`; where it cannot do its work, say why on stderr and exit with 1 (130 after SIGINT or SIGTERM)."""
    # What was begun is undone on both signals.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main()
    except (DeployError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
