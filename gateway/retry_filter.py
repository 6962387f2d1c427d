"""The body of POST /api/tasks/retry: which ended tasks to start again."""

from google.protobuf.timestamp_pb2 import Timestamp

from gateway.admission import refusal
from gateway.bodies import RetryBody
from gateway.options import parse_time
from headrace.v1.management_pb2 import RetryTasksRequest
from headrace.v1.task_pb2 import TaskStatus
from servicekit.errors import FieldError
from servicekit.pointers import nearest

LIMIT_DEFAULT = 100
LIMIT_MAX = 1000
_NAME_CHARS_MAX = 200
_STATUSES = {"failed": TaskStatus.TASK_STATUS_FAILED, "cancelled": TaskStatus.TASK_STATUS_CANCELLED}


def retry_request(body: RetryBody) -> RetryTasksRequest:
    """Raises InvalidArgument that names each wrong field."""
    errors = [
        *_status_errors(body.status),
        *_name_errors("type", body.type),
        *_name_errors("error", body.error),
        *_time_errors(body),
        *_limit_errors(body.limit),
    ]
    if errors:
        raise refusal(errors)
    return RetryTasksRequest(
        status=_STATUSES[body.status or "failed"],
        type=body.type or "",
        error_code=body.error or "",
        finished_after=_time(body.finished_after),
        finished_before=_time(body.finished_before),
        limit=LIMIT_DEFAULT if body.limit is None else body.limit,
        # Only said: a request that changes up to 1,000 tasks has to say so itself.
        dry_run=body.dry_run is not False,
    )


def _status_errors(status: str | None) -> list[FieldError]:
    if status is None or status in _STATUSES:
        return []
    message = f"Expected one of {', '.join(_STATUSES)}.{nearest(status, _STATUSES)}"
    return [FieldError("/status", "enum", message)]


def _name_errors(field: str, name: str | None) -> list[FieldError]:
    if name is None or (name.isprintable() and 1 <= len(name) <= _NAME_CHARS_MAX):
        return []
    return [FieldError(f"/{field}", "format", f"Expected 1 to {_NAME_CHARS_MAX} printable characters.")]


def _time_errors(body: RetryBody) -> list[FieldError]:
    message = "Expected a time with its zone as RFC 3339 writes it, such as 2030-01-31T12:00:00Z."
    errors = [
        FieldError(f"/{name}", "format", message)
        for name, text in (("finished_after", body.finished_after), ("finished_before", body.finished_before))
        if text is not None and parse_time(text) is None
    ]
    after, before = _time(body.finished_after), _time(body.finished_before)
    if not errors and after is not None and before is not None and after.ToNanoseconds() >= before.ToNanoseconds():
        errors.append(FieldError("/finished_before", "order", "The value must be later than finished_after."))
    return errors


def _limit_errors(limit: int | None) -> list[FieldError]:
    if limit is None or 1 <= limit <= LIMIT_MAX:
        return []
    rule, bound = ("minimum", "least 1") if limit < 1 else ("maximum", f"most {LIMIT_MAX}")
    return [FieldError("/limit", rule, f"The value must be at {bound}.")]


def _time(text: str | None) -> Timestamp | None:
    return None if text is None else parse_time(text)
