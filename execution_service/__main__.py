"""`python -m execution_service`: one execution replica, until SIGTERM or SIGINT drains it."""

import asyncio

import structlog

from execution_service.service import ExecutionService
from execution_service.settings import ExecutionSettings
from execution_service.workers import prctl
from servicekit.logs import configure_logging
from servicekit.open_files import allow_open_files
from servicekit.runtime import run_service
from servicekit.settings import describe, load_settings

# A worker takes up to ten, its relatives aside, and there may be 256 in each of a few pools.
OPEN_FILES = 16_384

log = structlog.stdlib.get_logger(__name__)


async def main(stop: asyncio.Event) -> None:
    settings = load_settings(ExecutionSettings)
    configure_logging("execution", settings.replica, settings.log_level, settings.log_format)
    log.info("starting", settings=describe(settings))
    # Workers run as the same user, and are not to read what is in our environment.
    prctl.hide_memory()
    allow_open_files(OPEN_FILES)
    service = ExecutionService(settings)
    await service.start()
    await stop.wait()
    await service.drain()


if __name__ == "__main__":
    run_service(main)
