"""What the services that call us must get right: every field is checked again, and named when it is wrong."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC

from headrace.v1 import management_pb2 as pb
from headrace.v1.task_pb2 import (
    TASK_STATUS_CANCELLED,
    TASK_STATUS_FAILED,
    TASK_STATUS_UNSPECIFIED,
    Submission,
    TaskOptions,
)
from management_service.domain.statuses import TaskStatus
from management_service.rpc.mapping import STATUS_FROM_PROTO
from management_service.storage.records import FinishedFilter, Listing
from servicekit.errors import FieldError, InvalidArgument

SUBMISSIONS_MAX = 10_000
LIST_DEFAULT = 50
LIST_MAX = 200
NAMED_MAX = 1_000
TYPES_MAX = 20
_ID_MAX = 2**53
_NAME_MAX = 200
_TIMEOUT_MS_MAX = 24 * 3_600_000
_DELAY_MS_MAX = 366 * 24 * 3_600_000
_SECONDS_MAX = 253_402_300_799  # the last second of 9999
_BACKOFF_MS_MAX = 24 * 3_600_000
RETRIES_DEFAULT = 100
RETRIES_MAX = 1_000
_RETRIABLE = {
    TASK_STATUS_UNSPECIFIED: TaskStatus.FAILED,
    TASK_STATUS_FAILED: TaskStatus.FAILED,
    TASK_STATUS_CANCELLED: TaskStatus.CANCELLED,
}


def check_submissions(submissions: Sequence[Submission]) -> None:
    """Raise InvalidArgument naming each wrong field of the first wrong submission."""
    if not 0 < len(submissions) <= SUBMISSIONS_MAX:
        raise _invalid([FieldError("/batch/submissions", "length", f"1 to {SUBMISSIONS_MAX} submissions are wanted")])
    ids = set()
    for index, submission in enumerate(submissions):
        if wrong := list(_wrong_fields(submission, f"/batch/submissions/{index}")):
            raise _invalid(wrong)
        ids.add(submission.task_id)
    if len(ids) < len(submissions):
        raise _invalid([FieldError("/batch/submissions", "unique", "a task id occurs twice")])


def listing(request: pb.ListTasksRequest) -> Listing:
    """What the request means. Raises InvalidArgument for what cannot be asked for."""
    wrong = []
    if not 0 <= request.limit <= LIST_MAX:
        wrong.append(FieldError("/limit", "range", f"0 (the default) to {LIST_MAX}"))
    if request.after < 0:
        wrong.append(FieldError("/after", "range", "a task id, or 0"))
    statuses = request.statuses or ([request.status] if request.status else [])
    if not all(status in STATUS_FROM_PROTO for status in statuses):
        wrong.append(FieldError("/statuses" if request.statuses else "/status", "enum", "not a status of this version"))
    for name, values, at_most in (("task_ids", request.task_ids, NAMED_MAX), ("types", request.types, TYPES_MAX)):
        if len(values) > at_most:
            wrong.append(FieldError(f"/{name}", "max_items", f"at most {at_most}"))
    if wrong:
        raise _invalid(wrong)
    return Listing(
        task_ids=sorted(set(request.task_ids)),
        statuses=[STATUS_FROM_PROTO[status] for status in dict.fromkeys(statuses)],
        type_names=list(dict.fromkeys(request.types)) or ([request.type] if request.type else []),
        limit=request.limit or LIST_DEFAULT,
        after=request.after or None,
    )


def finished_filter(request: pb.RetryTasksRequest) -> FinishedFilter:
    """What the request means. Raises InvalidArgument for what cannot be asked for."""
    wrong = []
    if not 0 <= request.limit <= RETRIES_MAX:
        wrong.append(FieldError("/limit", "range", f"0 (the default) to {RETRIES_MAX}"))
    if request.status not in _RETRIABLE:
        wrong.append(FieldError("/status", "enum", "FAILED or CANCELLED"))
    for name, moment in (("finished_after", request.finished_after), ("finished_before", request.finished_before)):
        if not 0 <= moment.seconds <= _SECONDS_MAX:
            wrong.append(FieldError(f"/{name}", "range", "a time from 1970 to 9999"))
    if wrong:
        raise _invalid(wrong)
    return FinishedFilter(
        status=_RETRIABLE[request.status],
        type_name=request.type or None,
        error_code=request.error_code or None,
        finished_after=request.finished_after.ToDatetime(UTC) if request.HasField("finished_after") else None,
        finished_before=request.finished_before.ToDatetime(UTC) if request.HasField("finished_before") else None,
    )


def _wrong_fields(submission: Submission, where: str) -> Iterator[FieldError]:
    yield from _outside(where, "task_id", submission.task_id, 1, _ID_MAX)
    for name, text in (("type", submission.type), ("pool", submission.pool)):
        if not text or len(text) > _NAME_MAX or "\0" in text:
            yield FieldError(f"{where}/{name}", "length", f"1 to {_NAME_MAX} characters, none of them NUL")
    yield from _outside(where, "priority", submission.priority, 0, 9)
    yield from _outside(where, "max_attempts", submission.max_attempts, 1, 20)
    yield from _outside(where, "timeout_ms", submission.timeout_ms, 1, _TIMEOUT_MS_MAX)
    yield from _outside(where, "delay_ms", submission.delay_ms, 0, _DELAY_MS_MAX)
    yield from _outside(where, "expires_in_ms", submission.expires_in_ms, 0, _DELAY_MS_MAX)
    if submission.HasField("options"):
        yield from _wrong_options(submission.options, f"{where}/options", submission.timeout_ms)
    if not (submission.data.startswith(b"{") and submission.data.endswith(b"}")):
        yield FieldError(f"{where}/data", "object", "a JSON object is expected")
    if submission.idempotency_key and not submission.fingerprint:
        yield FieldError(f"{where}/fingerprint", "required", "an idempotency key needs a fingerprint")


def _wrong_options(options: TaskOptions, where: str, timeout_ms: int) -> Iterator[FieldError]:
    if not 0 <= options.soft_timeout_ms < timeout_ms:
        yield FieldError(f"{where}/soft_timeout_ms", "range", "0 (none), or shorter than timeout_ms")
    if options.HasField("backoff"):
        backoff = options.backoff
        yield from _outside(f"{where}/backoff", "initial_ms", backoff.initial_ms, 1, _BACKOFF_MS_MAX)
        yield from _outside(f"{where}/backoff", "max_ms", backoff.max_ms, backoff.initial_ms, _BACKOFF_MS_MAX)
        if not 1 <= backoff.factor <= 10:
            yield FieldError(f"{where}/backoff/factor", "range", "1 to 10 is allowed")


def _outside(where: str, name: str, value: int, low: int, high: int) -> Iterator[FieldError]:
    if not low <= value <= high:
        yield FieldError(f"{where}/{name}", "range", f"{low} to {high} is allowed")


def _invalid(fields: Iterable[FieldError]) -> InvalidArgument:
    fields = list(fields)
    return InvalidArgument(f"{fields[0].field}: {fields[0].message}", fields=fields)
