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

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Errors whose text says all that somebody needs who starts the service.
_PLAIN_ERRORS = (HeadraceError, OSError)


def run_service(main: Main) -> None:
    """Run `main(stop)` and leave the process: with 0 when it returned, with 1 when it failed.

    With EX_CONFIG (78) when a setting is wrong: starting it again will not help.
    The first SIGTERM, SIGINT or SIGHUP sets `stop`, and main is expected to drain and return. A second one ends the
    process at once with 1; but not a SIGHUP, which comes beside the others when a terminal is closed. Where SIGHUP is
    ignored (nohup) it stays so.
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
    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            loop.add_signal_handler(number, _on_signal, stop, number)
    await main(stop)
    log.info("service_stopped")
    _be_deaf(loop)


def _be_deaf(loop: asyncio.AbstractEventLoop) -> None:
    """Let no late signal end a process that has done its work with another exit code than 0."""
    for number in SIGNALS:
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)


def _on_signal(stop: asyncio.Event, number: signal.Signals) -> None:
    if stop.is_set() and number == signal.SIGHUP:
        return
    if stop.is_set():
        log.warning("stopped_at_once", signal=number.name)
        sys.stdout.flush()
        os._exit(1)
    log.info("stopping", signal=number.name)
    stop.set()
