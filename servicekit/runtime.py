"""Runs the `main` of a service: event loop, signals, exit code."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable

import structlog
import uvloop

from servicekit.errors import HeadraceError
from servicekit.settings import SettingsError

log = structlog.stdlib.get_logger(__name__)

Main = Callable[[asyncio.Event], Awaitable[None]]

# Errors whose text says all that somebody needs who starts the service.
_PLAIN_ERRORS = (HeadraceError, OSError)


def run_service(main: Main) -> None:
    """Run `main(stop)` and leave the process: with 0 when it returned, with 1 when it failed.

    With EX_CONFIG (78) when a setting is wrong: starting it again will not help.
    The first SIGTERM, SIGINT or SIGHUP sets `stop`, and main is expected to drain and return. A second one ends the
    process at once with 1.
    """
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(main))
    except SettingsError as error:
        log.critical("service_failed", reason=str(error))
        sys.exit(os.EX_CONFIG)
    except _PLAIN_ERRORS as error:
        log.critical("service_failed", reason=str(error))
        sys.exit(1)
    except Exception as error:
        log.critical("service_failed", reason=f"{type(error).__name__}: {error}", exc_info=error)
        sys.exit(1)
    sys.exit(0)


async def _run(main: Main) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _orders_to_stop():
        loop.add_signal_handler(number, _on_signal, stop, number)
    await main(stop)
    log.info("service_stopped")


def _orders_to_stop() -> list[signal.Signals]:
    """SIGHUP, too: a terminal that is closed stops in order what it runs, unless that was to outlive it (nohup)."""
    orders = [signal.SIGTERM, signal.SIGINT]
    return orders if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [*orders, signal.SIGHUP]


def _on_signal(stop: asyncio.Event, number: signal.Signals) -> None:
    if stop.is_set():
        log.warning("stopped_at_once", signal=number.name)
        sys.stdout.flush()
        os._exit(1)
    log.info("stopping", signal=number.name)
    stop.set()
