import json
from typing import Any

import pytest

from servicekit.errors import HeadraceError, InvalidArgument, Unavailable
from servicekit.live.cursors import Cursor
from servicekit.live.events import LiveEvent
from servicekit.live.filters import Filter
from servicekit.live.protocol import (
    BadMessage,
    Subscribe,
    Unsubscribe,
    decode_message,
    error_text,
    frame_texts,
    subscribed_text,
)
from servicekit.live.query import parse_query
from servicekit.live.session import EventFrame, SnapshotFrame
from servicekit.live.sources import Snapshot
from servicekit.task_views import STATUSES
from tests.unit.live.factories import COMPLETED, PROCESSING, update, wanted


def said(**fields: object) -> str:
    return json.dumps({"type": "subscribe", **fields})


def test_a_subscription_is_read_with_duplicates_merged() -> None:
    message = decode_message(
        said(filter={"types": ["a", "a"], "statuses": ["completed"], "ids": [7, 8, 7]}, cursor="1-2.3.4", ref="x")
    )
    assert message == Subscribe(wanted(7, 8, types=["a"], statuses=[COMPLETED]), Cursor(1, 2, 3, 4), "x")


@pytest.mark.parametrize(
    "text", [said(), said(filter=None, cursor=None, ref=None), said(filter={}), said(filter={"ids": None})]
)
def test_what_is_left_out_stands_for_everything(text: str) -> None:
    assert decode_message(text) == Subscribe(Filter())


def test_an_unsubscription_is_read() -> None:
    assert decode_message('{"type":"unsubscribe","ref":"r"}') == Unsubscribe("r")


@pytest.mark.parametrize(
    ("text", "code", "field"),
    [
        ("", "invalid_json", None),
        (" \n", "invalid_json", None),
        ("{", "invalid_json", None),
        ('{"type":"subscribe"} x', "invalid_json", None),
        ('{"type":NaN}', "invalid_json", None),
        ('{"type":"a\x00"}', "invalid_json", None),
        ("[1]", "object_expected", None),
        ("1", "object_expected", None),
        ("null", "object_expected", None),
        ('"subscribe"', "object_expected", None),
        ("[" * 30_000, "too_deep", None),
        ('{"type":' + "9" * 5_000 + "}", "number_out_of_range", None),
        ('{"type":1e999}', "number_out_of_range", None),
        ('{"type":"\\ud800"}', "invalid_unicode", "/type"),
        ('{"type":"subscribe","filter":{"types":["a\\u0000"]}}', "nul_character", "/filter/types/0"),
        ("{}", "unknown_message_type", "/type"),
        ('{"type":7}', "unknown_message_type", "/type"),
        ('{"type":"subscribee"}', "unknown_message_type", "/type"),
        ('{"type":"' + "x" * 10_000 + '"}', "unknown_message_type", "/type"),
        (said(reff="x"), "unknown_field", "/reff"),
        ('{"type":"unsubscribe","filter":{}}', "unknown_field", "/filter"),
        (said(ref={}), "invalid_ref", "/ref"),
        (said(ref="x" * 65), "invalid_ref", "/ref"),
        (said(filter=[]), "invalid_filter", "/filter"),
        (said(filter="*"), "invalid_filter", "/filter"),
        (said(filter={"id": [1]}), "unknown_field", "/filter/id"),
        (said(filter={"ids": 7}), "invalid_filter", "/filter/ids"),
        (said(filter={"ids": []}), "invalid_filter", "/filter/ids"),
        (said(filter={"ids": [1, "2"]}), "invalid_filter", "/filter/ids/1"),
        (said(filter={"ids": [True]}), "invalid_filter", "/filter/ids/0"),
        (said(filter={"ids": [1.5]}), "invalid_filter", "/filter/ids/0"),
        (said(filter={"ids": [0]}), "invalid_filter", "/filter/ids/0"),
        (said(filter={"ids": [2**63]}), "invalid_filter", "/filter/ids/0"),
        (said(filter={"ids": [[[1]]]}), "invalid_filter", "/filter/ids/0"),
        (said(filter={"ids": list(range(1, 1_002))}), "invalid_filter", "/filter/ids"),
        (said(filter={"types": [""]}), "invalid_filter", "/filter/types/0"),
        (said(filter={"types": ["x" * 201]}), "invalid_filter", "/filter/types/0"),
        (said(filter={"types": [f"t{number}" for number in range(21)]}), "invalid_filter", "/filter/types"),
        (said(filter={"statuses": ["done"]}), "invalid_filter", "/filter/statuses/0"),
        (said(filter={"statuses": [5]}), "invalid_filter", "/filter/statuses/0"),
        (said(cursor=""), "invalid_cursor", "/cursor"),
        (said(cursor=7), "invalid_cursor", "/cursor"),
        (said(cursor="-1-1.1.1"), "invalid_cursor", "/cursor"),
        (said(cursor="9" * 18 + "-1.1.1"), "invalid_cursor", "/cursor"),
    ],
)
def test_what_cannot_be_followed_is_refused_and_named(text: str, code: str, field: str | None) -> None:
    with pytest.raises(BadMessage) as caught:
        decode_message(text)
    error = caught.value
    assert (error.code, error.fields[0].field if error.fields else None) == (code, field)
    assert len(error.message) < 500


def test_an_error_tells_what_there_is_instead_and_which_message_it_is_about() -> None:
    with pytest.raises(BadMessage) as caught:
        decode_message('{"type":"subscribee","ref":"mine"}')
    event = json.loads(error_text(caught.value, caught.value.ref))
    assert event["event"] == "error"
    assert event["data"]["ref"] == "mine"
    assert "subscribe, unsubscribe" in event["data"]["message"]
    assert "Did you mean 'subscribe'" in event["data"]["message"]


def test_an_error_says_when_to_come_again() -> None:
    data = json.loads(error_text(Unavailable("Later.", code="draining", retry_after=1.5)))["data"]
    assert data == {"code": "draining", "message": "Later.", "retry_after": 1.5, "ref": None}


def test_a_filter_is_told_as_clients_write_it() -> None:
    fits = wanted(8, 7, types=["b", "a"], statuses=[COMPLETED, PROCESSING])
    data = json.loads(subscribed_text(fits, "r"))["data"]
    assert data["filter"] == {"types": ["a", "b"], "statuses": ["processing", "completed"], "ids": [7, 8]}
    assert decode_message(said(filter=data["filter"])) == Subscribe(fits)
    assert json.loads(subscribed_text(None, None))["data"] == {"ref": None, "filter": None}


def texts(frame: EventFrame | SnapshotFrame) -> list[dict[str, Any]]:
    return [json.loads(text) for text in frame_texts(frame)]


def test_an_event_shows_its_cursor_where_it_is_placed() -> None:
    event = LiveEvent(update(7, 3, COMPLETED, result=b"[1]"), Cursor(5, 6, 7))
    [placed] = texts(EventFrame(event, placed=True))
    [unplaced] = texts(EventFrame(event, placed=False))
    assert (placed["event"], placed["cursor"], unplaced["cursor"]) == ("task_update", "5-6.7.0", None)
    assert placed["data"] == unplaced["data"]
    assert placed["data"]["result"] == [1]
    [never] = texts(EventFrame(LiveEvent(update(7, 3)), placed=True))
    assert never["cursor"] is None


def test_a_reset_comes_before_the_snapshot_that_replaces_what_was_known() -> None:
    snapshot = Snapshot([update(7, 3)], more=True, missing=[9])
    [alone] = texts(SnapshotFrame(snapshot, reset=False))
    assert (alone["event"], alone["data"]["more"], alone["data"]["missing"]) == ("snapshot", True, [9])
    assert [task["id"] for task in alone["data"]["tasks"]] == [7]
    reset, again = texts(SnapshotFrame(snapshot, reset=True))
    assert (reset, again) == ({"event": "reset", "data": {"reason": "events_missed"}}, alone)


def test_a_query_is_read_as_a_filter() -> None:
    assert parse_query(b"") == (Filter(), None)
    query = b"type=a&type=b&type=a&status=completed&id=7&id=8&cursor=1-2.3.4"
    assert parse_query(query) == (wanted(7, 8, types=["a", "b"], statuses=[COMPLETED]), Cursor(1, 2, 3, 4))
    everything = "&".join(f"status={name}" for name in STATUSES)
    assert len(parse_query(everything.encode())[0].statuses) == len(STATUSES)


@pytest.mark.parametrize(
    "query",
    [
        b"types=a",
        b"type=",
        b"type=%00",
        b"type=" + b"x" * 201,
        b"&".join(b"type=t%d" % number for number in range(21)),
        b"status=COMPLETED",
        b"id=",
        b"id=-1",
        b"id=1,2",
        b"&".join(b"id=%d" % number for number in range(1, 1_002)),
        b"cursor=",
        b"cursor=1-2.3.4&cursor=1-2.3.4",
        b"id=" + b"1" * 25_000,
    ],
)
def test_other_queries_are_refused(query: bytes) -> None:
    with pytest.raises(HeadraceError) as caught:
        parse_query(query)
    assert isinstance(caught.value, InvalidArgument) or caught.value.http_status == 414
