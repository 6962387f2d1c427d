"""uvicorn inside our own event loop: our signal handlers, our order of stopping."""

import contextlib
import math
import socket
from collections.abc import Generator

import uvicorn
from starlette.types import ASGIApp

from gateway.http_protocol import BoundedHeadersProtocol
from gateway.settings import GatewaySettings

# What clients may send over a WebSocket; they have little to say.
_SOCKET_MESSAGE_BYTES_MAX = 64 * 1024


class EmbeddedServer(uvicorn.Server):
    """Leaves signals to the process that embeds it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def build_server(app: ASGIApp, settings: GatewaySettings) -> EmbeddedServer:
    config = uvicorn.Config(
        app,
        http=BoundedHeadersProtocol,
        ws="websockets-sansio",
        ws_max_size=_SOCKET_MESSAGE_BYTES_MAX,
        ws_ping_interval=20.0,
        ws_ping_timeout=20.0,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=settings.connections_max,
        timeout_keep_alive=5,
        # Beyond the grace, within which requests are answered: what is left then only has to be written.
        timeout_graceful_shutdown=math.ceil(settings.grace.total_seconds()) + 1,
    )
    return EmbeddedServer(config)


def listen(host: str, port: int) -> socket.socket:
    """Bind before anything is started, so that a port that is taken is found first. Port 0 picks a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listener
