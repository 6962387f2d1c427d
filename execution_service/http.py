"""The HTTP side of a replica: live streams of what it runs, for those who want them from the source."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from execution_service.live_source import ReplicaSource
from servicekit.http.problems import EXCEPTION_HANDLERS
from servicekit.http.server import HttpServer
from servicekit.live import sse
from servicekit.live.hub import Hub
from servicekit.live.socketio.server import SocketIOServer
from servicekit.live.streams import LiveStreams
from servicekit.live.websocket import socket_routes

CONNECTIONS_MAX = 500
# What is left of answers when the replica stops.
GRACE = timedelta(seconds=1)


class LiveServer:
    """Serves from `start`, which returns the port, to `stop`, which tells all readers."""

    def __init__(
        self,
        hub: Hub,
        source: ReplicaSource,
        *,
        require_type: Callable[[str], Awaitable[None]],
        is_draining: Callable[[], bool],
        host: str,
        port: int,
    ) -> None:
        self._streams = LiveStreams(hub, source, require_type=require_type, is_draining=is_draining)
        self._socketio = SocketIOServer(self._streams)
        app = self._socketio.wrap(_app(self._streams))
        self._http = HttpServer(app, host, port, connections_max=CONNECTIONS_MAX, grace=GRACE)

    async def start(self) -> int:
        return await self._http.start()

    async def stop(self) -> None:
        self._streams.close()
        await self._socketio.drain()
        await self._http.stop()


def _app(streams: LiveStreams) -> Starlette:
    events = [Route("/api/events", sse.follow_tasks), Route("/api/tasks/{task_id}/events", _follow_task)]
    for route in events:
        (route.methods or set()).discard("HEAD")  # there is no end at which to answer it
    app = Starlette(routes=[*events, *socket_routes()], exception_handlers=EXCEPTION_HANDLERS)
    app.router.redirect_slashes = False
    app.state.live = streams
    app.state.routes = events
    return app


async def _follow_task(request: Request) -> Response:
    return await sse.follow_task(request, request.path_params["task_id"])
