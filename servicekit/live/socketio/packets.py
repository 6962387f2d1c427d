"""The texts of Socket.IO (protocol 5) inside packets of engine.io (protocol 4): read strictly, written once for many.

A client may connect to a namespace, leave it, and emit events; it may answer an acknowledgement, of which none is ever
asked. Nothing here is binary. See https://github.com/socketio/socket.io-protocol.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import msgspec

from servicekit.errors import HeadraceError, InvalidArgument
from servicekit.live.cursors import Cursor
from servicekit.live.events import TASK_UPDATE
from servicekit.live.protocol import decode_json, error_view, reset_data
from servicekit.live.session import Frame, SnapshotFrame

ACK_ID_DIGITS_MAX = 15
ALL_TYPES = "/"
PONG = "3"
PROBE = "2probe"
UPGRADE = "5"
_SEPARATOR = "\x1e"
# A packet without content is let in: some clients end a poll with it.
_IDLE = "6"
_CLOSE = "1"
# The kind, the namespace with its comma, the id of an acknowledgement, and JSON.
_FORM = re.compile(r"4([0-3])(?:(/[^,]*),?)?([0-9]*)(.*)", re.ASCII | re.DOTALL)


class ParseError(Exception):
    """What the client sent breaks the protocol: its connection ends."""


class Kind(Enum):
    CONNECT = "0"
    DISCONNECT = "1"
    EVENT = "2"
    ACK = "3"


@dataclass(frozen=True, slots=True)
class Packet:
    """What a client says to a namespace. `body` is JSON that nobody has looked at."""

    kind: Kind
    namespace: str
    ack_id: int | None
    body: str


@dataclass(frozen=True, slots=True)
class Event:
    name: str
    arguments: list[Any]


def split_payload(text: str, *, packets_max: int) -> list[str]:
    """The packets of one POST. Raises ParseError."""
    if text.count(_SEPARATOR) >= packets_max:
        raise ParseError(f"more than {packets_max} packets in a body")
    return text.split(_SEPARATOR)


def is_engine_packet(text: str) -> bool:
    """Whether a packet is engine.io's own business: an answer to a ping, the end, or nothing."""
    return text in (PONG, _CLOSE, _IDLE)


def read_packet(text: str) -> Packet:
    """Raises ParseError for all that no client of ours may send, binary packets among them."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise ParseError("not a packet that a client may send")
    kind, namespace, ack_id, body = Kind(match[1]), match[2] or ALL_TYPES, match[3], match[4]
    if len(ack_id) > ACK_ID_DIGITS_MAX:
        raise ParseError("the id of an acknowledgement is too long")
    if kind in (Kind.CONNECT, Kind.DISCONNECT) and ack_id:
        raise ParseError("this kind of packet asks for no acknowledgement")
    return Packet(kind, namespace.partition("?")[0], int(ack_id) if ack_id else None, body)


def read_auth(packet: Packet) -> Any:
    """What a client gives along when it connects, or None. Raises InvalidArgument."""
    return decode_json(packet.body) if packet.body else None


def read_event(packet: Packet) -> Event:
    """Raises ParseError where it is no event, and InvalidArgument where its sender waits to be told why."""
    try:
        value = decode_json(packet.body)
    except InvalidArgument as error:
        if packet.ack_id is None:
            raise ParseError(error.message) from None
        raise
    if not isinstance(value, list) or not value or not isinstance(value[0], str):
        raise ParseError("an event is an array that begins with its name")
    return Event(value[0], value[1:])


def connect_packet(namespace: str) -> str:
    """What connects to a namespace, without what came along."""
    return f"40{_prefix(namespace)}"


def disconnect_packet(namespace: str) -> str:
    return f"41{_prefix(namespace)}"


def refusal_text(namespace: str, error: HeadraceError) -> str:
    """The answer to a connect packet that is refused."""
    return f"4{_prefix(namespace)}{_json({'message': error.message, 'data': error_view(error)})}"


def ack_text(namespace: str, ack_id: int, answer: dict[str, Any]) -> str:
    return f"3{_prefix(namespace)}{ack_id}[{_json(answer)}]"


def event_text(namespace: str, name: str, data: bytes, cursor: Cursor | None = None) -> str:
    """An event with data that is JSON already, so that it is encoded once for all who hear it."""
    place = "null" if cursor is None else f'"{cursor}"'
    return f'2{_prefix(namespace)}["{name}",{data.decode()},{place}]'


def frame_texts(namespace: str, frame: Frame) -> Iterable[str]:
    """One packet for each thing that a session tells."""
    if not isinstance(frame, SnapshotFrame):
        cursor = frame.event.cursor if frame.placed else None
        return (event_text(namespace, TASK_UPDATE, frame.event.data(), cursor),)
    snapshot = event_text(namespace, "snapshot", frame.snapshot.data(), frame.cursor)
    return (event_text(namespace, "reset", reset_data()), snapshot) if frame.reset else (snapshot,)


def error_event_text(namespace: str, error: HeadraceError) -> str:
    return event_text(namespace, "error", msgspec.json.encode(error_view(error)))


def _prefix(namespace: str) -> str:
    return "" if namespace == ALL_TYPES else f"{namespace},"


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
