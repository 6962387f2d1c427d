"""Decides whether requested tasks are acceptable, and completes them from the catalog into submissions."""

import asyncio
from collections.abc import Sequence
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from gateway.bodies import BackoffBody, TaskBody
from gateway.catalog import Catalog
from gateway.data_rules import decode_data
from gateway.options import PRIORITY_DEFAULT, option_errors, parse_time
from gateway.task_options import combination_errors, differing_options, requested_backoff
from gateway.task_types import TaskTypeEntry
from headrace.v1.task_pb2 import Submission, TaskOptions
from servicekit.errors import FieldError, InvalidArgument, TooLarge
from servicekit.pointers import child

_ERRORS_MAX = 20
# After checking so much data at a stretch, others get their turn.
_CHECKED_BYTES_MAX = 1024 * 1024
# Rules that are also the code of the whole answer; all others are `invalid_request`.
_OWN_CODES = frozenset(
    {
        "unknown_task_type",
        "unknown_field",
        "nul_character",
        "too_deep",
        "too_many_items",
        "number_out_of_range",
        "batch_too_large",
    }
)


class Admission:
    def __init__(self, catalog: Catalog, *, data_bytes_max: int, batch_tasks_max: int) -> None:
        self._catalog = catalog
        self._data_bytes_max = data_bytes_max
        self._batch_tasks_max = batch_tasks_max

    async def admit_one(self, body: TaskBody) -> Submission:
        await self._catalog.require((body.type,))
        return (await self._admit([(body, "")]))[0]

    async def admit_many(self, bodies: Sequence[TaskBody]) -> list[Submission]:
        """All or nothing. Errors name the place in the batch."""
        if not 1 <= len(bodies) <= self._batch_tasks_max:
            message = f"A batch has 1 to {self._batch_tasks_max} tasks, not {len(bodies)}."
            raise refusal([FieldError("", "batch_too_large" if bodies else "batch_empty", message)])
        await self._catalog.require({body.type for body in bodies})
        return await self._admit([(body, f"/{index}") for index, body in enumerate(bodies)])

    async def _admit(self, bodies: Sequence[tuple[TaskBody, str]]) -> list[Submission]:
        accepted_at = Timestamp()
        accepted_at.GetCurrentTime()
        submissions: list[Submission] = []
        errors: list[FieldError] = []
        checked = 0
        for body, pointer in bodies:
            entry = self._catalog.find(body.type)
            raw = bytes(body.data)  # a copy: the view would keep the whole request in memory
            checked += len(raw)
            if checked > _CHECKED_BYTES_MAX:
                checked = 0
                await asyncio.sleep(0)
            found = self._errors(body, raw, entry, pointer)
            if found:
                errors.extend(found)
                if len(errors) >= _ERRORS_MAX:
                    break
            elif entry is not None:
                submissions.append(_submission(body, raw, entry, accepted_at))
        if errors:
            raise refusal(errors[:_ERRORS_MAX])
        return submissions

    def _errors(self, body: TaskBody, raw: bytes, entry: TaskTypeEntry | None, pointer: str) -> list[FieldError]:
        if entry is None:
            return [self._catalog.unknown(body.type, child(pointer, "type"))]
        errors = _option_errors(body, entry, pointer) if _has_options(body) else []
        where = f"{pointer}/data"
        if len(raw) > self._data_bytes_max:
            message = f"The data has {len(raw)} bytes; the limit is {self._data_bytes_max}."
            raise TooLarge(message, code="data_too_large", fields=[FieldError(where, "max_bytes", message)])
        if raw[:1] != b"{":
            return [*errors, FieldError(where, "type", "Expected an object.")]
        data, broken = decode_data(raw, where)
        if broken is not None:
            return [*errors, broken]
        return [*errors, *entry.errors(data, where)]


def refusal(errors: Sequence[FieldError]) -> InvalidArgument:
    """One error for all that is wrong with a request; its code is the first rule that was broken, if it has its own."""
    first = errors[0]
    code = first.rule if first.rule in _OWN_CODES else "invalid_request"
    more = f" ({len(errors) - 1} more below)" if len(errors) > 1 else ""
    return InvalidArgument(f"{first.field or 'The body'}: {first.message}{more}", code=code, fields=errors)


def given_options(body: TaskBody) -> dict[str, Any]:
    """The options that the client gave, without those that it left to the catalog."""
    options = {
        "priority": body.priority,
        "run_at": body.run_at,
        "delay": body.delay,
        "max_attempts": body.max_attempts,
        "timeout": body.timeout,
        "expires_in": body.expires_in,
        "soft_timeout": body.soft_timeout,
        "backoff": None if body.backoff is None else _given_backoff(body.backoff),
    }
    return {name: value for name, value in options.items() if value is not None}


def _given_backoff(backoff: BackoffBody) -> dict[str, Any] | None:
    """Nothing where no member is given: that is the same as no backoff."""
    members = {"initial": backoff.initial, "factor": backoff.factor, "maximum": backoff.maximum}
    return {name: value for name, value in members.items() if value is not None} or None


def _has_options(body: TaskBody) -> bool:
    return not (
        body.priority is None
        and body.run_at is None
        and body.delay is None
        and body.max_attempts is None
        and body.timeout is None
        and body.expires_in is None
        and body.soft_timeout is None
        and body.backoff is None
    )


def _option_errors(body: TaskBody, entry: TaskTypeEntry, pointer: str) -> list[FieldError]:
    return option_errors(body, pointer) or combination_errors(
        body, timeout_ms=entry.timeout_ms, backoff=entry.backoff, pointer=pointer
    )


def _options(body: TaskBody, entry: TaskTypeEntry) -> TaskOptions | None:
    if body.timeout is None and body.soft_timeout is None and body.backoff is None:
        return entry.options  # worked out once for the type
    timeout_ms = entry.timeout_ms if body.timeout is None else round(body.timeout * 1000)
    soft_timeout_ms = entry.soft_timeout_ms if body.soft_timeout is None else round(body.soft_timeout * 1000)
    return differing_options(requested_backoff(body, entry.backoff), soft_timeout_ms, timeout_ms)


def _submission(body: TaskBody, raw: bytes, entry: TaskTypeEntry, accepted_at: Timestamp) -> Submission:
    return Submission(
        type=entry.name,
        data=raw,
        pool=entry.pool,
        priority=PRIORITY_DEFAULT if body.priority is None else body.priority,
        max_attempts=entry.max_attempts if body.max_attempts is None else body.max_attempts,
        timeout_ms=entry.timeout_ms if body.timeout is None else round(body.timeout * 1000),
        run_at=None if body.run_at is None else parse_time(body.run_at),
        delay_ms=0 if body.delay is None else round(body.delay * 1000),
        # The shortest time there is, where 0 would mean for ever.
        expires_in_ms=0 if body.expires_in is None else max(1, round(body.expires_in * 1000)),
        options=_options(body, entry),
        accepted_at=accepted_at,
    )
