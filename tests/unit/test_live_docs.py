"""What docs/live.md shows is what is said and understood."""

import json
import re
from pathlib import Path
from typing import Any

from starlette.routing import Match, Router

from execution_service.progress import INTERVAL_SECONDS
from gateway import event_routes
from gateway.snapshots import TASKS_MAX
from headrace.v1.task_pb2 import TaskUpdate
from servicekit.http.server import PING_SECONDS, PONG_SECONDS, SOCKET_MESSAGE_BYTES_MAX
from servicekit.live import sse, websocket
from servicekit.live.cursors import Cursor
from servicekit.live.filters import TASK_IDS_MAX, TYPES_MAX
from servicekit.live.mailbox import MERGED_MAX
from servicekit.live.message_rate import MESSAGES_MAX
from servicekit.live.protocol import REF_CHARS_MAX, decode_message
from servicekit.live.query import parse_query
from servicekit.live.session import IDLE_SECONDS
from servicekit.live.sources import Snapshot
from servicekit.task_views import RESULT_BYTES_MAX, update_view

TEXT = (Path(__file__).parents[2] / "docs" / "live.md").read_text()
ROUTERS = (event_routes.router, Router(websocket.socket_routes()))


def messages() -> list[dict[str, Any]]:
    blocks = re.findall(r"^```json\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    return [json.loads(line) for block in blocks for line in block.splitlines()]


def test_the_messages_of_clients_are_understood() -> None:
    said = [message for message in messages() if "type" in message]
    assert len(said) == 3
    for message in said:
        decode_message(json.dumps(message))


def test_the_events_are_those_that_are_told() -> None:
    told = {message["event"]: message for message in messages() if "event" in message}
    assert told.keys() == {"snapshot", "task_update", "reset", "error", "subscribed"}
    assert told["task_update"]["data"].keys() == update_view(TaskUpdate()).keys()
    assert json.dumps(told["snapshot"]["data"]) == json.dumps(json.loads(Snapshot([]).data()))
    Cursor.parse(told["task_update"]["cursor"])


def test_every_address_exists_and_takes_its_parameters() -> None:
    addresses = re.findall(r"(?:(?:http|ws)://127\.0\.0\.1:8080)(/[a-z][^\s'\"]*)", TEXT)
    assert len(addresses) >= 5
    for address in addresses:
        path, _, query = address.partition("?")
        scopes = [{"type": "http", "method": "GET", "path": path}, {"type": "websocket", "path": path}]
        assert any(
            route.matches({**scope, "root_path": "", "headers": []})[0] is Match.FULL
            for scope in scopes
            for router in ROUTERS
            for route in router.routes
        ), path
        parse_query(query.encode())


def test_every_close_code_is_told() -> None:
    codes = {value for name, value in vars(websocket).items() if name.startswith("CLOSE_")}
    told = {int(code) for row in re.findall(r"^\| ([0-9, ]+) \|", TEXT, re.MULTILINE) for code in row.split(",")}
    assert codes <= told


def test_the_numbers_are_those_of_the_code() -> None:
    for phrase in (
        f"At most {TYPES_MAX} types and {TASK_IDS_MAX:,} ids",
        f"the\n  newest {TASKS_MAX};",
        f"more than {RESULT_BYTES_MAX // 1024} KiB",
        f"at most {MESSAGES_MAX} messages in a second and {SOCKET_MESSAGE_BYTES_MAX // 1024} KiB each",
        f"of up to {REF_CHARS_MAX} characters",
        f"leaves more than {MERGED_MAX:,} tasks unread, or takes nothing for {websocket.SEND_SECONDS:.0f} s",
        f"pings every {PING_SECONDS:.0f} s and waits {PONG_SECONDS:.0f} s",
        f"sends a comment every {IDLE_SECONDS:.0f} s",
    ):
        assert phrase in TEXT, phrase
    assert sse.SEND_SECONDS == websocket.SEND_SECONDS
    assert websocket.BAD_MESSAGES_MAX == 10
    assert INTERVAL_SECONDS == 1 / 5
