"""The Idempotency-Key header: what a key may be, and the fingerprint that tells whether a body was seen before."""

import hashlib
import re
from collections.abc import Sequence

import msgspec

from gateway.admission import given_options
from gateway.bodies import TaskBody
from headrace.v1.task_pb2 import Submission
from servicekit.errors import FieldError, InvalidArgument

_HEADER = "idempotency-key"
_VISIBLE_ASCII = re.compile(r"[!-~]{1,128}")
_CANONICAL = msgspec.json.Encoder(order="deterministic")


def idempotency_key(values: Sequence[str]) -> str | None:
    """Return the key of the request, or nothing if it has none. `values` are all headers of that name."""
    if not values:
        return None
    if len(values) > 1 or not _VISIBLE_ASCII.fullmatch(values[0]):
        message = "Send one Idempotency-Key of 1 to 128 visible ASCII characters."
        field = FieldError(_HEADER, "format", message)
        raise InvalidArgument(message, code="invalid_idempotency_key", fields=[field])
    return values[0]


def mark_one(submission: Submission, body: TaskBody, key: str) -> None:
    """Put the key and the fingerprint of the request into its submission."""
    submission.idempotency_key = key
    submission.fingerprint = fingerprint([body])


def mark_batch(submissions: Sequence[Submission], bodies: Sequence[TaskBody], key: str) -> None:
    """Give each task of a batch a key of its own, made from the batch's, and all of them the batch's fingerprint."""
    digest = hashlib.sha256(key.encode()).hexdigest()
    whole = fingerprint(bodies)
    for index, submission in enumerate(submissions):
        submission.idempotency_key = f"batch/{digest}/{index}"
        submission.fingerprint = whole


def fingerprint(bodies: Sequence[TaskBody]) -> bytes:
    """The same for bodies that differ only in whitespace, in the order of keys, or in how they write a value."""
    digest = hashlib.sha256()
    for body in bodies:
        digest.update(_CANONICAL.encode([body.type, msgspec.json.decode(body.data), given_options(body)]))
    return digest.digest()
