import hashlib

import pytest

from gateway.bodies import decode_task
from gateway.idempotency import fingerprint, idempotency_key, mark_batch
from headrace.v1.task_pb2 import Submission
from servicekit.errors import InvalidArgument


def test_a_request_without_the_header_has_no_key() -> None:
    assert idempotency_key([]) is None


@pytest.mark.parametrize("key", ["a", "!~" * 64, "9f1c-42"])
def test_a_key_is_visible_ascii(key: str) -> None:
    assert idempotency_key([key]) == key


@pytest.mark.parametrize("values", [[""], ["x" * 129], ["a b"], ["a\n"], ["é"], ["a", "a"]])
def test_other_keys_are_refused(values: list[str]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        idempotency_key(values)
    assert caught.value.code == "invalid_idempotency_key"


def test_order_of_keys_and_whitespace_make_no_difference() -> None:
    one = decode_task(b'{"type":"noop","data":{"a":1,"b":{"c":2,"d":3}},"priority":5}')
    same = decode_task(b'{ "priority": 5, "data": {"b": {"d":3, "c":2}, "a":1}, "type": "noop"}')
    assert fingerprint([one]) == fingerprint([same])


@pytest.mark.parametrize(
    "other",
    [
        b'{"type":"noop","data":{"a":2}}',
        b'{"type":"other","data":{"a":1}}',
        b'{"type":"noop","data":{"a":1},"priority":4}',
        b'{"type":"noop","data":{"a":"1"}}',
    ],
)
def test_another_body_has_another_fingerprint(other: bytes) -> None:
    assert fingerprint([decode_task(b'{"type":"noop","data":{"a":1}}')]) != fingerprint([decode_task(other)])


def test_fingerprints_stay_over_releases() -> None:
    body = b'{"type":"noop","data":{"a":1},"priority":5,"timeout":2.5}'
    canonical = b'["noop",{"a":1},{"priority":5,"timeout":2.5}]'
    assert fingerprint([decode_task(body)]) == hashlib.sha256(canonical).digest()


@pytest.mark.parametrize(
    "options",
    ['"expires_in":5', '"soft_timeout":5', '"backoff":{"initial":5}', '"backoff":{"factor":5}'],
)
def test_options_are_part_of_the_fingerprint(options: str) -> None:
    plain = decode_task(b'{"type":"noop","data":{}}')
    assert fingerprint([plain]) != fingerprint([decode_task(f'{{"type":"noop","data":{{}},{options}}}'.encode())])


def test_an_empty_backoff_is_the_same_as_none() -> None:
    plain = decode_task(b'{"type":"noop","data":{}}')
    for backoff in (b"null", b"{}", b'{"initial":null}'):
        assert fingerprint([plain]) == fingerprint(
            [decode_task(b'{"type":"noop","data":{},"backoff":' + backoff + b"}")]
        )


def test_each_task_of_a_batch_has_its_own_key_and_the_fingerprint_of_all() -> None:
    bodies = [decode_task(b'{"type":"noop","data":{}}')] * 2
    submissions = [Submission(), Submission()]
    mark_batch(submissions, bodies, "k")
    assert len({submission.idempotency_key for submission in submissions}) == 2
    assert {submission.fingerprint for submission in submissions} == {fingerprint(bodies)}
    assert fingerprint(bodies) != fingerprint(bodies[:1])
    assert all(len(submission.idempotency_key) <= 128 for submission in submissions)
