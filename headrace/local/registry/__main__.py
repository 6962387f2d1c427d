"""Starts the registry: `python -m headrace.local.registry --port PORT`. SIGTERM and SIGINT end it."""

import argparse
import asyncio
import json
import logging
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from headrace.local.process import LOOPBACK
from headrace.local.registry.agent import Agent
from headrace.local.registry.api import ConsulApi
from headrace.local.registry.http_server import HttpServer

log = logging.getLogger("headrace.local.registry")


class _JsonLines(logging.Formatter):
    """The log format of the services, without the memory of the library that they use for it."""

    _known = frozenset(vars(logging.makeLogRecord({}))) | {"message"}

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "event": record.getMessage(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "service": "registry",
            **{name: value for name, value in vars(record).items() if name not in self._known},
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=repr)


async def serve(host: str, port: int, token: str | None) -> None:
    stop = asyncio.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signal_number, stop.set)
    agent = Agent()
    server = HttpServer(ConsulApi(agent, token=token).answer)
    agent.start()
    bound = await server.start(host, port)
    log.info("registry_started", extra={"address": f"{host}:{bound}"})
    await stop.wait()
    await server.stop()
    await agent.stop()
    log.info("registry_stopped")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m headrace.local.registry", description=__doc__)
    parser.add_argument("--host", default=LOOPBACK, help="address to listen on")
    parser.add_argument("--port", type=int, default=8500, help="port to listen on; 0 takes a free one")
    parser.add_argument("--token-file", type=Path, help="file with the token that clients have to send")
    arguments = parser.parse_args()
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    try:
        token = _token(arguments.token_file) if arguments.token_file else None
    except (OSError, ValueError) as error:
        parser.error(f"--token-file: {error}")
    asyncio.run(serve(arguments.host, arguments.port, token))


def _token(path: Path) -> str:
    """What the file holds. Raises ValueError if that is nothing."""
    token = path.read_text(encoding="utf-8").strip()
    if not token:
        raise ValueError(f"{path} is empty")
    return token


if __name__ == "__main__":
    main()
