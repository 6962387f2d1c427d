"""Server side of the errors: turns what a handler raises into a gRPC status, and bounds calls without a deadline."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeAlias

import grpc
import structlog
from grpc_status import rpc_status

from servicekit.errors import DeadlineExceeded, HeadraceError, status_from_error

log = structlog.stdlib.get_logger(__name__)

# For clients that gave no deadline of their own.
UNARY_SECONDS_MAX = 30.0

# Generic in the type stubs alone, hence the text.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
MaybeHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the call of each handler. A message of a stream costs nothing more than without it."""

    def __init__(self) -> None:
        self._wrapped: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[MaybeHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> MaybeHandler:
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None:  # answered with UNIMPLEMENTED; names that clients invent are not kept
                return None
            wrapped = self._wrapped[method] = _wrap(method, handler)
        return wrapped


def _wrap(method: str, handler: Handler) -> Handler:
    codecs = {
        "request_deserializer": handler.request_deserializer,
        "response_serializer": handler.response_serializer,
    }
    if handler.request_streaming and handler.response_streaming:
        return grpc.stream_stream_rpc_method_handler(_streaming(method, handler.stream_stream), **codecs)
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler(_streaming(method, handler.unary_stream), **codecs)
    if handler.request_streaming:
        return grpc.stream_unary_rpc_method_handler(_answering(method, handler.stream_unary), **codecs)
    return grpc.unary_unary_rpc_method_handler(_answering(method, handler.unary_unary), **codecs)


def _answering(method: str, behaviour: Any) -> Any:
    async def answer(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        async with _errors_as_status(method, context):
            if context.time_remaining() is not None:
                return await behaviour(request, context)
            try:
                async with asyncio.timeout(UNARY_SECONDS_MAX) as bound:
                    return await behaviour(request, context)
            except TimeoutError as error:
                if not bound.expired():  # the handler's own
                    raise
                raise DeadlineExceeded(f"no answer within {UNARY_SECONDS_MAX:.0f} s") from error

    return answer


def _streaming(method: str, behaviour: Any) -> Any:
    """A generator is driven here instead of inside the library, which takes the same loop around `write`."""

    async def stream(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        async with _errors_as_status(method, context):
            if not inspect.isasyncgenfunction(behaviour):
                await behaviour(request, context)
                return
            async with aclosing(behaviour(request, context)) as responses:
                async for response in responses:
                    await context.write(response)

    return stream


@asynccontextmanager
async def _errors_as_status(method: str, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
    try:
        yield
    except HeadraceError as error:
        if error.grpc_code is grpc.StatusCode.INTERNAL:
            log.error("rpc_failed", method=method, exc_info=error)
        await _abort(context, error)
    except grpc.aio.AbortError:
        raise
    except Exception as error:
        log.error("rpc_failed", method=method, exc_info=error)
        await _abort(context, HeadraceError("internal error"))


async def _abort(context: grpc.aio.ServicerContext[Any, Any], error: HeadraceError) -> None:
    status = rpc_status.to_status(status_from_error(error))
    await context.abort(status.code, status.details, status.trailing_metadata)
