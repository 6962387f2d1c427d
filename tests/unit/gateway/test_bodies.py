import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from starlette.requests import Request
from starlette.types import Message

from gateway.bodies import decode_retry, decode_task, decode_tasks, read_json_body
from gateway.body_budget import BodyBudget
from gateway.retry_filter import retry_request
from headrace.v1.task_pb2 import TaskStatus
from servicekit.errors import HeadraceError


def refusal(body: bytes) -> HeadraceError:
    with pytest.raises(HeadraceError) as caught:
        decode_task(body)
    return caught.value


def test_a_task_is_decoded_with_its_data_as_it_came() -> None:
    body = decode_task(b'{"type": "noop", "data": {"b" : 1.50, "a":[ ]}, "priority": 7, "timeout": 2.5}')
    assert (body.type, bytes(body.data), body.priority, body.timeout) == ("noop", b'{"b" : 1.50, "a":[ ]}', 7, 2.5)


def test_null_is_the_same_as_an_option_left_out() -> None:
    assert decode_task(b'{"type":"noop","data":{},"priority":null,"run_at":null}').priority is None


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"type":"noop","data":{},}',
        b"{'type':'noop'}",
        b'{"type":"noop","data":{"a":NaN}}',
        b'{"type":"noop","data":{"a":Infinity}}',
        b'{"type":"noop","data":{"a":-Infinity}}',
        b'{"type":"noop","data":{"a":"\x01"}}',
        b'{"type":"noop","data":{"a":"\x00"}}',
        b'{"type":"noop","data":{"a":01}}',
        b'{"type":"noop","data":{}} x',
        b'{"type":"noop","data":{"a":"\xff"}}',
        b'{"type":"\xff","data":{}}',
        b'{"type":"noop","data":{"a":"\xed\xa0\x80"}}',
        '{"type":"noop","data":{}}'.encode("utf-16"),
        b'\xef\xbb\xbf{"type":"noop","data":{}}',
    ],
)
def test_what_is_no_json_in_utf8_is_invalid_json(body: bytes) -> None:
    error = refusal(body)
    assert (error.http_status, error.code) == (400, "invalid_json")
    assert "line 1, column" in error.message


def test_the_place_of_a_syntax_error_is_told() -> None:
    assert "line 2, column 9" in refusal(b'{"type":"noop",\n"data": }').message


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (rb'{"type":"noop","data":{"a":"\ud800"}}', "/data/a"),
        (rb'{"type":"noop","data":{"a":[1,"x\udc00y"]}}', "/data/a/1"),
        (rb'{"type":"noop","data":{"\ud800":1}}', "/data"),
        (rb'{"type":"\ud83d","data":{}}', "/type"),
    ],
)
def test_a_lone_surrogate_is_named(body: bytes, field: str) -> None:
    error = refusal(body)
    assert (error.http_status, error.code, error.fields[0].field) == (422, "invalid_unicode", field)


def test_a_pair_of_surrogates_is_a_character() -> None:
    assert bytes(decode_task(rb'{"type":"noop","data":{"a":"\ud83d\ude00"}}').data) == rb'{"a":"\ud83d\ude00"}'


def test_nesting_beyond_the_parser_is_too_deep() -> None:
    depth = 100_000
    error = refusal(b'{"type":"noop","data":' + b"[" * depth + b"]" * depth + b"}")
    assert (error.http_status, error.code) == (422, "too_deep")


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"7", b"null", b"true"])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    error = refusal(body)
    assert (error.http_status, error.fields[0].field, error.fields[0].rule) == (422, "", "type")


@pytest.mark.parametrize(
    ("body", "field", "rule"),
    [
        (b'{"data":{}}', "/type", "required"),
        (b'{"type":"noop"}', "/data", "required"),
        (b'{"type":null,"data":{}}', "/type", "type"),
        (b'{"type":7,"data":{}}', "/type", "type"),
        (b'{"type":"noop","data":{},"priority":true}', "/priority", "type"),
        (b'{"type":"noop","data":{},"priority":"5"}', "/priority", "type"),
        (b'{"type":"noop","data":{},"priority":1.5}', "/priority", "type"),
        (b'{"type":"noop","data":{},"priority":5.0}', "/priority", "type"),
        (b'{"type":"noop","data":{},"max_attempts":1e3}', "/max_attempts", "type"),
        (b'{"type":"noop","data":{},"timeout":"10s"}', "/timeout", "type"),
        (b'{"type":"noop","data":{},"run_at":5}', "/run_at", "type"),
        (b'{"type":"noop","data":{},"prioritty":5}', "/prioritty", "unknown_field"),
        (b'{"type":"noop","data":{},"expires_in":"1h"}', "/expires_in", "type"),
        (b'{"type":"noop","data":{},"expires_in":true}', "/expires_in", "type"),
        (b'{"type":"noop","data":{},"soft_timeout":[]}', "/soft_timeout", "type"),
        (b'{"type":"noop","data":{},"backoff":5}', "/backoff", "type"),
        (b'{"type":"noop","data":{},"backoff":[1,2,3]}', "/backoff", "type"),
        (b'{"type":"noop","data":{},"backoff":{"factor":"2"}}', "/backoff/factor", "type"),
        (b'{"type":"noop","data":{},"backoff":{"max":5}}', "/backoff/max", "unknown_field"),
        (b'{"type":"noop","data":{},"a/b":5}', "/a~1b", "unknown_field"),
    ],
)
def test_wrong_shapes_are_named_without_coercion(body: bytes, field: str, rule: str) -> None:
    error = refusal(body)
    assert error.http_status == 422
    assert (error.fields[0].field, error.fields[0].rule) == (field, rule)


def test_an_unknown_field_gets_the_nearest_name() -> None:
    assert "'priority'" in refusal(b'{"type":"noop","data":{},"prioritty":5}').message


def test_an_unknown_member_of_the_backoff_gets_those_it_has() -> None:
    assert "'maximum'" in refusal(b'{"type":"noop","data":{},"backoff":{"maximun":5}}').message
    assert "initial, factor, maximum" in refusal(b'{"type":"noop","data":{},"backoff":{"q":5}}').message


@pytest.mark.parametrize(
    ("body", "field", "rule"),
    [
        (b"[]", "", "type"),
        (b'{"status":5}', "/status", "type"),
        (b'{"limit":"10"}', "/limit", "type"),
        (b'{"limit":1.5}', "/limit", "type"),
        (b'{"dry_run":"no"}', "/dry_run", "type"),
        (b'{"dryrun":false}', "/dryrun", "unknown_field"),
        (b'{"status":"completed"}', "/status", "enum"),
        (b'{"status":"faild"}', "/status", "enum"),
        (b'{"type":""}', "/type", "format"),
        (b'{"error":"' + b"x" * 201 + b'"}', "/error", "format"),
        (rb'{"error":"\u0000"}', "/error", "format"),
        (b'{"limit":0}', "/limit", "minimum"),
        (b'{"limit":1001}', "/limit", "maximum"),
        (b'{"finished_after":"yesterday"}', "/finished_after", "format"),
        (b'{"finished_before":"2030-01-01"}', "/finished_before", "format"),
        (
            b'{"finished_after":"2030-01-01T00:00:00Z","finished_before":"2030-01-01T00:00:00Z"}',
            "/finished_before",
            "order",
        ),
    ],
)
def test_a_filter_of_retries_is_checked_as_strictly(body: bytes, field: str, rule: str) -> None:
    with pytest.raises(HeadraceError) as caught:
        retry_request(decode_retry(body))
    assert caught.value.http_status == 422
    assert (caught.value.fields[0].field, caught.value.fields[0].rule) == (field, rule)


def test_an_unknown_field_of_a_retry_is_hinted_at_by_its_own_fields() -> None:
    with pytest.raises(HeadraceError, match="'dry_run'"):
        decode_retry(b'{"dryrun":false}')


def test_a_retry_only_says_what_it_would_do_unless_told_otherwise() -> None:
    request = retry_request(decode_retry(b"{}"))
    assert (request.status, request.limit, request.dry_run) == (TaskStatus.TASK_STATUS_FAILED, 100, True)
    assert retry_request(decode_retry(b'{"dry_run":null}')).dry_run
    assert not retry_request(decode_retry(b'{"dry_run":false}')).dry_run


def test_a_long_unknown_field_is_not_repeated_in_full() -> None:
    error = refusal(b'{"type":"noop","data":{},"' + b"x" * 5000 + b'":5}')
    assert len(error.message) < 400
    assert len(error.fields[0].field) < 110


def test_errors_in_a_batch_name_the_place() -> None:
    with pytest.raises(HeadraceError) as caught:
        decode_tasks(b'[{"type":"noop","data":{}},{"type":"noop","data":{},"priority":"x"}]')
    assert caught.value.fields[0].field == "/1/priority"


def test_a_batch_that_is_no_array_is_refused() -> None:
    with pytest.raises(HeadraceError, match="JSON array"):
        decode_tasks(b'{"type":"noop","data":{}}')


def test_an_empty_body_is_refused() -> None:
    assert refusal(b"").code == "body_required"


def request(chunks: list[bytes], *, headers: dict[str, str] | None = None, stall: bool = False) -> Request:
    given = {"content-type": "application/json", **(headers or {})}
    messages: AsyncIterator[Message] = _messages(chunks, stall=stall)
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/tasks",
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
    }
    return Request(scope, lambda: anext(messages))


async def _messages(chunks: list[bytes], *, stall: bool) -> AsyncIterator[Message]:
    for chunk in chunks:
        yield {"type": "http.request", "body": chunk, "more_body": True}
    if stall:
        await asyncio.Event().wait()
    yield {"type": "http.request", "body": b"", "more_body": False}


async def read(given: Request, *, seconds: float = 5.0) -> bytes:
    with BodyBudget(100).hold() as hold:
        return await read_json_body(given, hold, bytes_max=10, timeout=timedelta(seconds=seconds))


async def test_a_body_within_the_limit_is_read() -> None:
    assert await read(request([b"12345", b"67890"])) == b"1234567890"


async def test_a_body_announced_as_too_large_is_refused_before_it_is_read() -> None:
    with pytest.raises(HeadraceError) as caught:
        await read(request([], headers={"content-length": "11"}, stall=True))
    assert (caught.value.http_status, caught.value.code) == (413, "body_too_large")


async def test_a_body_that_grows_too_large_is_refused_at_the_limit() -> None:
    with pytest.raises(HeadraceError) as caught:
        await read(request([b"x" * 6, b"x" * 6], stall=True))
    assert caught.value.http_status == 413


async def test_a_body_that_never_ends_is_given_up() -> None:
    with pytest.raises(HeadraceError) as caught:
        await read(request([b"x"], stall=True), seconds=0.05)
    assert caught.value.http_status == 408


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": ""},
        {"content-type": "application/xml"},
        {"content-type": "multipart/form-data; boundary=x"},
        {"content-type": "application/json; charset=utf-16"},
        {"content-encoding": "gzip"},
        {"content-encoding": "br"},
    ],
)
async def test_other_media_types_and_compressed_bodies_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(HeadraceError) as caught:
        await read(request([b"{}"], headers=headers))
    assert caught.value.http_status == 415


@pytest.mark.parametrize("content_type", ["application/json; charset=UTF-8", "Application/JSON", "application/json;"])
async def test_ways_to_write_the_media_type_are_accepted(content_type: str) -> None:
    assert await read(request([b"{}"], headers={"content-type": content_type})) == b"{}"


def test_all_bodies_together_have_a_bound_that_is_given_back() -> None:
    budget = BodyBudget(10)
    with budget.hold() as first:
        first.add(8)
        with budget.hold() as second, pytest.raises(HeadraceError) as caught:
            second.add(3)
        assert (caught.value.http_status, caught.value.code) == (503, "overloaded")
        assert budget.bytes_held == 8
    assert budget.bytes_held == 0
