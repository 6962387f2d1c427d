"""Which requests belong to engine.io, and which of those are refused before it sees them."""

from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

PATH = "/socket.io/"
PROTOCOL = "4"
_QUERY_BYTES_MAX = 4096
_TRANSPORTS = ("polling", "websocket")


class Refused(Exception):  # noqa: N818 - the name says what happened
    """An answer instead of a connection. `code` is engine.io's number for the reason."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


UNKNOWN_TRANSPORT = 0
UNKNOWN_SESSION = 1
BAD_METHOD = 2
BAD_REQUEST = 3
FORBIDDEN = 4
UNSUPPORTED_PROTOCOL = 5


@dataclass(frozen=True, slots=True)
class Ask:
    """A request to engine.io whose query is right."""

    # The task type that the path names.
    path_type: str | None
    # The session that it belongs to; none for a handshake.
    sid: str | None


def is_engine_request(scope: Scope) -> bool:
    """Raw WebSockets use paths below ours too; only what comes from a Socket.IO client names its protocol."""
    path: str = scope["path"]
    if not (path.startswith(PATH) or path == PATH.rstrip("/")):
        return False
    return any(part.startswith(b"EIO=") for part in scope["query_string"].split(b"&"))


def read_request(scope: Scope) -> Ask:
    """Raises Refused."""
    _require_same_origin(scope)
    query = _query(scope["query_string"])
    if query.get("EIO") != PROTOCOL:
        message = f"Only engine.io protocol {PROTOCOL} is spoken here: use a Socket.IO client of version 3 or 4."
        raise Refused(400, UNSUPPORTED_PROTOCOL, message)
    transport = query.get("transport")
    if transport not in _TRANSPORTS or (transport == "websocket") != (scope["type"] == "websocket"):
        raise Refused(400, UNKNOWN_TRANSPORT, "The transport must be polling, or websocket over a WebSocket.")
    if "j" in query:
        raise Refused(400, BAD_REQUEST, "JSONP is not offered.")
    sid = query.get("sid")
    method = scope.get("method", "GET")
    if method not in ("GET", "POST") or (method == "POST" and sid is None):
        raise Refused(400, BAD_METHOD, "A handshake and a poll are GET requests; messages of a session come by POST.")
    return Ask(_path_type(scope["path"]), sid)


def _require_same_origin(scope: Scope) -> None:
    """Pages of other sites must not listen in; programs send no Origin."""
    headers = Headers(scope=scope)
    origin = headers.get("origin")
    if origin is not None and _host_of(origin) != headers.get("host"):
        raise Refused(403, FORBIDDEN, "Pages of other sites may not connect.")


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _query(query_string: bytes) -> dict[str, str]:
    if len(query_string) > _QUERY_BYTES_MAX:
        raise Refused(400, BAD_REQUEST, f"The query has more than {_QUERY_BYTES_MAX} bytes.")
    pairs = parse_qsl(query_string.decode("latin-1"), keep_blank_values=True)
    query = dict(pairs)
    for name in ("EIO", "transport", "sid"):
        if sum(1 for key, _ in pairs if key == name) > 1:
            raise Refused(400, BAD_REQUEST, f"The parameter {name} is given more than once.")
    return query


def _path_type(path: str) -> str | None:
    return path.removeprefix(PATH.rstrip("/")).strip("/") or None
