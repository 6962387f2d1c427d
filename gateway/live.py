"""`/ws/tasks/{id}`: one task, live over a WebSocket."""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import msgspec
import structlog
from fastapi import APIRouter
from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.core import Gateway
from gateway.parameters import parse_task_id
from gateway.story import FeedEnded, TaskStory
from servicekit.errors import HeadraceError

log = structlog.stdlib.get_logger(__name__)

router = APIRouter()

CLOSE_DONE = 1000
CLOSE_FAILED = 1011
CLOSE_RESTART = 1012
CLOSE_LATER = 1013
CLOSE_NOT_FOUND = 4404
CLOSE_INVALID = 4422
_CLOSE_BY_STATUS = {404: CLOSE_NOT_FOUND, 422: CLOSE_INVALID, 503: CLOSE_LATER, 504: CLOSE_LATER}
# A client that does not take one message within this time is cut off.
_SEND_SECONDS = 15.0


@router.websocket("/ws/tasks/{task_id}")
async def follow_task(websocket: WebSocket, task_id: str) -> None:
    """Send the state of the task, then each change, and close with 1000 after the final one."""
    if not _same_origin(websocket):
        await websocket.close()  # before it is accepted: answered with 403
        return
    await websocket.accept()
    gateway: Gateway = websocket.app.state.gateway
    gateway.metrics.sockets_open += 1
    teller = asyncio.create_task(_tell(websocket, gateway, task_id))
    reader = asyncio.create_task(_read_until_gone(websocket))
    try:
        await asyncio.wait((teller, reader), return_when=asyncio.FIRST_COMPLETED)
    finally:
        gateway.metrics.sockets_open -= 1
        for task in (teller, reader):
            task.cancel()
        await asyncio.gather(teller, reader, return_exceptions=True)


async def _tell(websocket: WebSocket, gateway: Gateway, task_id: str) -> None:
    """Tell the whole story, then close. Ends early without a word when the client is gone."""
    try:
        try:
            code, reason = await _tell_story(websocket, gateway, task_id)
        except HeadraceError as error:
            code, reason = _CLOSE_BY_STATUS.get(error.http_status, CLOSE_FAILED), error.code
            await _send(websocket, _error_event(error))
        except FeedEnded:
            code, reason = CLOSE_RESTART, "the gateway restarts; connect again"
        await websocket.close(code, reason)
    except (WebSocketDisconnect, TimeoutError, OSError, RuntimeError):
        pass  # RuntimeError: the server has closed the connection already
    except Exception as error:  # a task of its own: nobody else would log it
        log.error("socket_failed", exc_info=error)
        await websocket.close(CLOSE_FAILED)


async def _tell_story(websocket: WebSocket, gateway: Gateway, task_id: str) -> tuple[int, str]:
    story = TaskStory(parse_task_id(task_id), gateway.reader, gateway.feed)
    events: AsyncIterator[bytes] = story.events()
    async for event in events:
        await _send(websocket, event)
    return CLOSE_DONE, "the task has ended"


async def _send(websocket: WebSocket, event: bytes) -> None:
    async with asyncio.timeout(_SEND_SECONDS):
        await websocket.send_text(event.decode())


async def _read_until_gone(websocket: WebSocket) -> None:
    """Clients have nothing to say here; what they send is dropped, and only their leaving matters."""
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass


def _error_event(error: HeadraceError) -> bytes:
    return msgspec.json.encode({"event": "error", "data": {"code": error.code, "message": error.message}})


def _same_origin(websocket: WebSocket) -> bool:
    """Browsers name the page that connects; pages of other sites must not listen in. Other clients send no Origin."""
    origin = websocket.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == websocket.headers.get("host")
