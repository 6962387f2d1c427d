"""uvicorn inside our own event loop: our signal handlers, our order of stopping."""

import asyncio
import contextlib
import math
import socket
from collections.abc import Generator, Iterator
from datetime import timedelta

import uvicorn
from starlette.types import ASGIApp

from servicekit.http.protocol import BoundedHeadersProtocol
from servicekit.http.socket_protocol import BoundedSocketProtocol

# What clients may send over a WebSocket; they have little to say.
SOCKET_MESSAGE_BYTES_MAX = 64 * 1024
# A client that answers no ping is found within both together.
PING_SECONDS = 20.0
PONG_SECONDS = 20.0


class EmbeddedServer(uvicorn.Server):
    """Leaves signals to the process that embeds it, and no client in doubt when it stops."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer also those who are connected and were not accepted yet: closing the listener would reset them."""
        waiting = [connection for listener in sockets or [] for connection in _accept_all(listener)]
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        for connection in waiting:
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)
        await super().shutdown()

    def _protocol(self) -> asyncio.Protocol:
        return BoundedHeadersProtocol(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state, _loop=None
        )


def _accept_all(listener: socket.socket) -> Iterator[socket.socket]:
    """Those who wait to be accepted at a listener that does not block, until there are none or none can be had."""
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            connection.setblocking(False)
            yield connection


def build_server(app: ASGIApp, *, connections_max: int, grace: timedelta) -> EmbeddedServer:
    """A server of HTTP and WebSockets; `grace` is how long requests may go on after the order to stop."""
    config = uvicorn.Config(
        app,
        http=BoundedHeadersProtocol,
        ws=BoundedSocketProtocol,
        ws_max_size=SOCKET_MESSAGE_BYTES_MAX,
        ws_ping_interval=PING_SECONDS,
        ws_ping_timeout=PONG_SECONDS,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=connections_max,
        timeout_keep_alive=5,
        # Beyond the grace, within which requests are answered: what is left then only has to be written.
        timeout_graceful_shutdown=math.ceil(grace.total_seconds()) + 1,
    )
    return EmbeddedServer(config)


class HttpServer:
    """A server that listens from `start` to `stop`."""

    def __init__(self, app: ASGIApp, host: str, port: int, *, connections_max: int, grace: timedelta) -> None:
        self._host = host
        self._port = port
        self._server = build_server(app, connections_max=connections_max, grace=grace)
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Return the port. Raises OSError where it is taken."""
        listener = listen(self._host, self._port)
        # From now on who connects waits until the server is there.
        listener.listen()
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]), name="http_server")
        port: int = listener.getsockname()[1]
        return port

    async def stop(self) -> None:
        """End what is answered, within the grace; safe to repeat."""
        serving, self._serving = self._serving, None
        if serving is not None:
            self._server.should_exit = True
            await asyncio.wait([serving])


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
