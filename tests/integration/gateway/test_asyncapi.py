"""docs/asyncapi.yaml tells what a running gateway really sends, all of it and nothing else."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from headrace.v1.task_pb2 import CancelReceipt, Submission, TaskError, TaskStatus, TaskUpdate
from servicekit.live.protocol import decode_message
from servicekit.live.socketio.wishes import read_wishes
from servicekit.task_views import STATUSES
from tests.support.engineio import EngineSocket, engine_socket
from tests.support.fake_management import FakeManagement
from tests.support.live import Publisher, open_events, open_socket
from tests.support.running_gateway import RunningGateway

Json = dict[str, Any]
DOCUMENT: Json = yaml.safe_load((Path(__file__).parents[3] / "docs" / "asyncapi.yaml").read_text())
MESSAGES: Json = DOCUMENT["components"]["messages"]
PROCESSING = TaskStatus.TASK_STATUS_PROCESSING
COMPLETED = TaskStatus.TASK_STATUS_COMPLETED
FAILED = TaskStatus.TASK_STATUS_FAILED
RAW = {
    "snapshot": "snapshot",
    "reset": "reset",
    "task_update": "taskUpdate",
    "subscribed": "subscribed",
    "error": "error",
}
SAID_BY_CLIENTS = {"subscribe", "unsubscribe", "socketIoAuth", "socketIoSubscribe"}


class Seen:
    """Checks messages, and remembers of which kinds there were."""

    def __init__(self) -> None:
        self.kinds: set[str] = set()
        self._validators: dict[str, Any] = {}

    def check(self, kind: str, payload: object) -> None:
        if kind not in self._validators:
            # References are read in the whole document; JSON Schema 7 is what AsyncAPI means by default.
            reference = {"$ref": f"#/components/messages/{kind}/payload", "components": DOCUMENT["components"]}
            self._validators[kind] = jsonschema_rs.Draft7Validator(reference)
        problems = [
            f"{list(problem.instance_path)}: {problem.message}"
            for problem in self._validators[kind].iter_errors(payload)
        ]
        assert not problems, (kind, payload, problems)
        self.kinds.add(kind)


def camel(event: str) -> str:
    return "".join(word.capitalize() for word in event.split("_"))


async def hear(seen: Seen, socket: EngineSocket) -> str:
    """Check the next packet of Socket.IO, and return the kind of message."""
    packet = await socket.hear()
    body = json.loads(packet[min(packet.find(mark) for mark in "[{" if mark in packet) :])
    if packet.startswith("42"):
        kind, payload = f"socketIo{camel(body[0])}", body[1:]
    elif packet.startswith("43"):
        kind, payload = "socketIoAcknowledgement", body
    elif packet.startswith("44"):
        kind, payload = "socketIoConnectError", body
    else:
        return "connected"
    seen.check(kind, payload)
    return kind


async def publish_every_kind(publisher: Publisher, management: FakeManagement) -> None:
    """What updates can be of: a change, progress, a result, a failure with all that it can carry."""
    error = TaskError(
        code="failed", message="no", exception="ValueError", signal=9, exit_code=1, peak_memory_bytes=1 << 20
    )
    error.receipt.CopyFrom(
        CancelReceipt(ended_by=CancelReceipt.ENDED_BY_SIGKILL, stopped_after_ms=12, processes_gone=True)
    )
    await publisher.move(7, PROCESSING)
    await publisher.progress(7, 1, 0.5, "half")
    await publisher.move(7, COMPLETED, result=b'{"a":[1]}')
    failed = management.move(8, FAILED)
    await publisher.publish(
        TaskUpdate(task_id=8, type="noop", status=FAILED, revision=failed.revision, attempt=1, error=error)
    )


async def test_every_message_is_as_described(
    running: RunningGateway, publisher: Publisher, management: FakeManagement
) -> None:
    seen = Seen()
    for task_id in (8, 9):
        management.store(Submission(task_id=task_id, type="noop", data=b"{}", pool="io"))
    async with (
        open_socket(running.port, "/ws/tasks?cursor=1-1.0.0") as raw,
        open_events(running.client, "/api/events?cursor=1-1.0.0") as events,
        engine_socket(running.port) as socketio,
    ):
        await socketio.say('40/noop,{"cursor":"1-1.0.0"}')
        assert [await hear(seen, socketio) for _ in range(3)] == ["connected", "socketIoReset", "socketIoSnapshot"]
        for _ in range(2):
            message = await raw.hear()
            seen.check(RAW[message["event"]], message)
            name, data = await events.hear()
            seen.check(f"event{camel(name)}", data)
        await publish_every_kind(publisher, management)
        for _ in range(4):
            seen.check("taskUpdate", await raw.hear())
            name, data = await events.hear()
            seen.check(f"event{camel(name)}", data)
            assert await hear(seen, socketio) == "socketIoTaskUpdate"

        for message in (
            {"type": "subscribe", "ref": "a", "filter": {"ids": [9, 404]}},
            {"type": "unsubscribe"},
            {"type": "subscribe", "filter": {"statuses": ["weird"]}, "ref": "b"},
        ):
            await raw.say(message)
            answer = await raw.hear()
            seen.check(RAW[answer["event"]], answer)
            if answer["data"]["ref"] == "a":
                seen.check("snapshot", await raw.hear())
        for packet, kinds in (
            ('42/noop,1["subscribe",{"ids":[9,404]}]', ["socketIoAcknowledgement", "socketIoSnapshot"]),
            ('42/noop,2["subscribe",{"ids":[0]}]', ["socketIoAcknowledgement"]),
            ('42/noop,["join"]', ["socketIoError"]),
            ("40/absent,", ["socketIoConnectError"]),
        ):
            await socketio.say(packet)
            assert [await hear(seen, socketio) for _ in kinds] == kinds
        await running.drain()
        assert await hear(seen, socketio) == "socketIoError"
        name, data = await events.hear()
        seen.check(f"event{camel(name)}", data)
    assert seen.kinds == MESSAGES.keys() - SAID_BY_CLIENTS


@pytest.mark.parametrize("kind", sorted(SAID_BY_CLIENTS))
def test_the_examples_of_what_clients_say_are_understood(kind: str) -> None:
    understand: dict[str, Callable[[Any], object]] = {
        "subscribe": lambda payload: decode_message(json.dumps(payload)),
        "unsubscribe": lambda payload: decode_message(json.dumps(payload)),
        "socketIoAuth": lambda payload: read_wishes(payload, task_type=None),
        "socketIoSubscribe": lambda payload: read_wishes(payload[0], task_type=None),
    }
    seen = Seen()
    for example in MESSAGES[kind]["examples"]:
        seen.check(kind, example["payload"])
        understand[kind](example["payload"])
    assert kind in seen.kinds


def test_every_reference_leads_somewhere() -> None:
    references = list(_references(DOCUMENT))
    assert len(references) > 50
    for reference in references:
        found: Any = DOCUMENT
        for name in reference.removeprefix("#/").split("/"):
            found = found[name]


def test_the_statuses_are_those_of_tasks() -> None:
    assert DOCUMENT["components"]["schemas"]["Status"]["enum"] == list(STATUSES)


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for member in value.values():
            yield from _references(member)
    elif isinstance(value, list):
        for element in value:
            yield from _references(element)


def test_a_message_that_is_not_described_is_found() -> None:
    told: Json = {"event": "reset", "data": {"reason": "events_missed"}}
    Seen().check("reset", told)
    for wrong in ({**told, "more": 1}, {"event": "reset"}, {**told, "data": {"reason": 7}}):
        with pytest.raises(AssertionError):
            Seen().check("reset", wrong)
