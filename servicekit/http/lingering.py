"""An answer to a request whose body is not wanted: sent at once, before what still comes is let in and forgotten."""

import asyncio

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

_SECONDS_MAX = 2.0
_BYTES_MAX = 128 * 1024 * 1024


class LingeringResponse(Response):
    """Most clients read the answer only after they have sent everything. A connection that is closed while data is on
    its way takes the answer with it (RFC 9112, section 9.6), so the end of the answer waits, within bounds.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        try:
            async with asyncio.timeout(_SECONDS_MAX):
                await _forget(receive)
        except TimeoutError:
            pass
        await send({"type": "http.response.body", "body": b""})


async def _forget(receive: Receive) -> None:
    """Receive the rest of a body of bounded size."""
    size = 0
    while size < _BYTES_MAX:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body", False):
            return
