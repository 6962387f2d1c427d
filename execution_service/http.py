"""The HTTP side of a replica: live streams of what it runs, for those who want them from the source."""

from datetime import timedelta

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from servicekit.http.problems import EXCEPTION_HANDLERS
from servicekit.http.server import HttpServer
from servicekit.live import sse
from servicekit.live.socketio.server import SocketIOServer
from servicekit.live.streams import LiveStreams
from servicekit.live.websocket import socket_routes

CONNECTIONS_MAX = 500
# What is left of answers when the replica stops.
GRACE = timedelta(seconds=1)


def live_server(streams: LiveStreams, socketio: SocketIOServer, host: str, port: int) -> HttpServer:
    app = socketio.wrap(_app(streams))
    return HttpServer(app, host, port, connections_max=CONNECTIONS_MAX, grace=GRACE)


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
