"""What clients of Socket.IO may say, and how they are told."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.v1.task_pb2 import TaskStatus, TaskUpdate
from servicekit.errors import HeadraceError, InvalidArgument, NotFound
from servicekit.live.cursors import Cursor
from servicekit.live.events import LiveEvent
from servicekit.live.session import EventFrame, SnapshotFrame
from servicekit.live.socketio.packets import (
    Event,
    Kind,
    Packet,
    ParseError,
    ack_text,
    connect_packet,
    disconnect_packet,
    frame_texts,
    read_auth,
    read_event,
    read_packet,
    refusal_text,
    split_payload,
)
from servicekit.live.socketio.wishes import read_wishes
from servicekit.live.sources import Snapshot

UPDATE = TaskUpdate(task_id=7, type="noop", status=TaskStatus.TASK_STATUS_QUEUED, revision=1)


@pytest.mark.parametrize(
    ("text", "packet"),
    [
        ("40", Packet(Kind.CONNECT, "/", None, "")),
        ('40{"cursor":"1"}', Packet(Kind.CONNECT, "/", None, '{"cursor":"1"}')),
        ("40/noop,", Packet(Kind.CONNECT, "/noop", None, "")),
        ("40/noop", Packet(Kind.CONNECT, "/noop", None, "")),
        ("40/noop?token=x,{}", Packet(Kind.CONNECT, "/noop", None, "{}")),
        ('40/my-type,{"cursor":"1-2.0.0"}', Packet(Kind.CONNECT, "/my-type", None, '{"cursor":"1-2.0.0"}')),
        ("41/noop,", Packet(Kind.DISCONNECT, "/noop", None, "")),
        ('42["subscribe",{}]', Packet(Kind.EVENT, "/", None, '["subscribe",{}]')),
        ('42/noop,12["subscribe",{}]', Packet(Kind.EVENT, "/noop", 12, '["subscribe",{}]')),
        ("43/noop,1[]", Packet(Kind.ACK, "/noop", 1, "[]")),
    ],
)
def test_what_clients_may_say(text: str, packet: Packet) -> None:
    assert read_packet(text) == packet


@given(st.text(max_size=40) | st.from_regex(r"4[0-9]{1,3}(/[a-z]*,)?[0-9]*.{0,20}", fullmatch=True))
def test_nothing_else_is_taken_for_it(text: str) -> None:
    try:
        packet = read_packet(text)
    except ParseError:
        return
    assert text[:2] in ("40", "41", "42", "43")
    assert packet.namespace.startswith("/")
    try:
        read_event(packet)
        read_auth(packet)
    except (ParseError, HeadraceError):
        pass


def test_an_event_has_a_name_and_arguments() -> None:
    assert read_event(read_packet('42["subscribe",{"ids":[1]},2]')) == Event("subscribe", [{"ids": [1]}, 2])


def test_an_event_that_is_not_json_is_answered_where_an_answer_is_awaited() -> None:
    with pytest.raises(ParseError):
        read_event(read_packet("42[NaN]"))
    with pytest.raises(InvalidArgument) as caught:
        read_event(read_packet("427[NaN]"))
    assert caught.value.code == "invalid_json"


def test_a_body_holds_so_many_packets() -> None:
    assert split_payload("3\x1e40", packets_max=2) == ["3", "40"]
    with pytest.raises(ParseError):
        split_payload("3\x1e3\x1e3", packets_max=2)


def test_an_update_is_told_with_its_place_if_it_has_one() -> None:
    event = LiveEvent(UPDATE, Cursor(1, 2, 3))
    [placed] = frame_texts("/noop", EventFrame(event, placed=True))
    assert placed.startswith('2/noop,["task_update",{"id":7,')
    assert placed.endswith(',"1-2.3.0"]')
    [unplaced] = frame_texts("/", EventFrame(event, placed=False))
    assert unplaced.startswith('2["task_update",')
    assert json.loads(unplaced[1:])[2] is None


def test_a_reset_comes_right_before_its_snapshot() -> None:
    reset, snapshot = frame_texts("/", SnapshotFrame(Snapshot([UPDATE], more=True), reset=True))
    assert json.loads(reset[1:]) == ["reset", {"reason": "events_missed"}, None]
    name, data, cursor = json.loads(snapshot[1:])
    assert (name, data["more"], data["missing"], cursor) == ("snapshot", True, [], None)
    assert [task["id"] for task in data["tasks"]] == [7]
    assert len(list(frame_texts("/", SnapshotFrame(Snapshot([]), reset=False)))) == 1


def test_answers_name_their_namespace() -> None:
    assert (connect_packet("/"), connect_packet("/noop")) == ("40", "40/noop,")
    assert (disconnect_packet("/"), disconnect_packet("/noop")) == ("41", "41/noop,")
    assert ack_text("/noop", 7, {"ok": True}) == '3/noop,7[{"ok":true}]'
    error = NotFound("There is none.", code="invalid_namespace")
    assert refusal_text("/x", error) == (
        '4/x,{"message":"There is none.","data":{"code":"invalid_namespace","message":"There is none."}}'
    )


def test_a_namespace_of_one_type_has_no_others() -> None:
    wanted, cursor = read_wishes({"ids": [3, 3], "statuses": ["failed"], "cursor": "1-2.3.4"}, task_type="noop")
    assert (wanted.types, wanted.task_ids) == (frozenset(("noop",)), frozenset((3,)))
    assert cursor == Cursor(1, 2, 3, 4)
    assert read_wishes({"types": ["noop"]}, task_type="noop")[0].types == frozenset(("noop",))
    with pytest.raises(HeadraceError) as caught:
        read_wishes({"types": ["noop", "word_count"]}, task_type="noop")
    assert caught.value.code == "filter_is_fixed"
    assert read_wishes({"types": ["word_count"]}, task_type=None)[0].types == frozenset(("word_count",))
