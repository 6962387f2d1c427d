"""The ASGI application: routes, error answers, and the layer around them."""

from fastapi import FastAPI
from starlette.middleware import Middleware

from gateway import docs, info_routes, live, openapi, task_routes
from gateway.core import Gateway
from gateway.problems import EXCEPTION_HANDLERS
from gateway.shell import RequestShell


def create_app(gateway: Gateway) -> FastAPI:
    app = FastAPI(
        title="Headrace",
        version=openapi.API_VERSION,
        description=openapi.DESCRIPTION,
        openapi_tags=openapi.TAGS,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        middleware=[Middleware(RequestShell, metrics=gateway.metrics)],
        exception_handlers=EXCEPTION_HANDLERS,
    )
    # The newest that the bundled viewer understands.
    app.openapi_version = openapi.OPENAPI_VERSION
    app.state.gateway = gateway
    for module in (task_routes, info_routes, live, docs):
        app.include_router(module.router)
    return app
