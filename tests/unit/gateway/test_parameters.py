import pytest
from starlette.requests import Request

from gateway.parameters import no_query, page, wait_seconds
from headrace.v1.task_pb2 import TaskStatus
from servicekit.errors import HeadraceError
from servicekit.parameters import parse_task_id


def request(query: str) -> Request:
    return Request({"type": "http", "query_string": query.encode(), "headers": []})


def test_an_id_is_a_positive_64_bit_integer() -> None:
    assert parse_task_id("9223372036854775807") == 2**63 - 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "-1",
        "+1",
        "01",
        "1.0",
        "1e3",
        "abc",
        "1_000",
        " 1",
        "1 ",
        "١",
        "9223372036854775808",
        "9" * 5000,
        "%00",
    ],
)
def test_anything_else_is_an_invalid_id(text: str) -> None:
    with pytest.raises(HeadraceError) as caught:
        parse_task_id(text)
    assert (caught.value.http_status, caught.value.code) == (422, "invalid_id")


@pytest.mark.parametrize(("query", "seconds"), [("", 0), ("wait=0", 0), ("wait=0.25", 0.25), ("wait=60", 60)])
def test_wait_is_a_number_of_seconds(query: str, seconds: float) -> None:
    assert wait_seconds(request(query)) == seconds


@pytest.mark.parametrize("value", ["-1", "61", "60.5", "inf", "nan", "1e1", "", "abc", "1s"])
def test_other_waits_are_refused(value: str) -> None:
    with pytest.raises(HeadraceError) as caught:
        wait_seconds(request(f"wait={value}"))
    assert (caught.value.http_status, caught.value.fields[0].field) == (422, "wait")


def test_a_page_has_defaults() -> None:
    wanted = page(request("")).request
    assert (wanted.status, wanted.type, wanted.limit, wanted.after) == (0, "", 50, 0)


def test_a_page_keeps_its_filters_for_the_next_one() -> None:
    wanted = page(request("status=failed&type=noop&limit=200&after=7"))
    assert wanted.request.status == TaskStatus.TASK_STATUS_FAILED
    assert (wanted.request.type, wanted.request.limit, wanted.request.after) == ("noop", 200, 7)
    assert wanted.filters == {"status": "failed", "type": "noop", "limit": "200"}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=-1", "limit"),
        ("limit=201", "limit"),
        ("limit=all", "limit"),
        ("limit=5&limit=6", "limit"),
        ("after=0", "after"),
        ("after=x", "after"),
        ("after=", "after"),
        ("status=weird", "status"),
        ("status=", "status"),
        ("status=unspecified", "status"),
        ("type=", "type"),
        ("type=a%00b", "type"),
        ("type=" + "x" * 201, "type"),
        ("sort=%3Bdrop+table", "sort"),
        ("sttaus=failed", "sttaus"),
    ],
)
def test_wrong_parameters_of_a_list_are_named(query: str, field: str) -> None:
    with pytest.raises(HeadraceError) as caught:
        page(request(query))
    assert (caught.value.http_status, caught.value.fields[0].field) == (422, field)


def test_where_no_parameter_is_known_each_is_refused() -> None:
    no_query(request(""))
    with pytest.raises(HeadraceError):
        no_query(request("a=1"))


def test_a_query_without_end_is_refused() -> None:
    with pytest.raises(HeadraceError) as caught:
        page(request("type=" + "x" * 5000))
    assert caught.value.http_status == 414
