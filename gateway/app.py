"""The ASGI application: routes, error answers, and the layer around them."""

from fastapi import FastAPI
from starlette.routing import Route
from starlette.types import ASGIApp

from gateway import docs, event_routes, info_routes, openapi, task_routes, worker_routes
from gateway.core import Gateway
from gateway.openapi_types import Json, with_task_types
from gateway.shell import RequestShell
from servicekit.http.problems import EXCEPTION_HANDLERS
from servicekit.live.websocket import socket_routes


def create_app(gateway: Gateway) -> ASGIApp:
    app = FastAPI(
        title="Headrace",
        version=openapi.API_VERSION,
        description=openapi.DESCRIPTION,
        openapi_tags=openapi.TAGS,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers=EXCEPTION_HANDLERS,
    )
    # The newest that the bundled viewer understands.
    app.openapi_version = openapi.OPENAPI_VERSION
    app.state.gateway = gateway
    app.state.live = gateway.live
    fixed = app.openapi

    def described() -> Json:
        return with_task_types(fixed(), gateway.catalog.describe_all(), openapi.NEW_TASK)

    app.openapi = described  # type: ignore[method-assign]
    routers = (task_routes.router, worker_routes.router, event_routes.router, info_routes.router, docs.router)
    for router in routers:
        app.include_router(router)
    app.router.routes.extend(socket_routes())
    routes = [*app.routes, *(route for router in routers for route in router.routes)]
    app.state.routes = [route for route in routes if isinstance(route, Route)]
    return RequestShell(gateway.socketio.wrap(app), gateway.metrics, gateway.interrupts)
