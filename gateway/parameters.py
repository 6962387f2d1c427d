"""Parameters in paths and queries: checked as strictly as bodies. Unknown and repeated ones are refused."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request

from headrace.v1.management_pb2 import ListTasksRequest
from headrace.v1.task_pb2 import TaskStatus
from servicekit.http.problems import UriTooLong
from servicekit.parameters import TASK_ID_MAX, TYPE_CHARS_MAX, invalid_parameter, is_type_name, positive_integer
from servicekit.pointers import nearest, shown
from servicekit.task_views import STATUSES

PAGE_DEFAULT = 50
PAGE_MAX = 200
WAIT_SECONDS_MAX = 60
_QUERY_BYTES_MAX = 4096
_SECONDS = re.compile(r"[0-9]{1,4}(\.[0-9]{1,6})?")


@dataclass(frozen=True, slots=True)
class Page:
    request: ListTasksRequest
    # The query as it came, without `after`.
    filters: dict[str, str]


def no_query(request: Request) -> None:
    _query(request, ())


def wait_seconds(request: Request) -> float:
    """`?wait=`, 0 when it is not given."""
    text = _query(request, ("wait",)).get("wait", "0")
    if not _SECONDS.fullmatch(text) or float(text) > WAIT_SECONDS_MAX:
        raise invalid_parameter("wait", "range", f"Expected seconds from 0 to {WAIT_SECONDS_MAX}.")
    return float(text)


def force(request: Request) -> bool:
    """`?force=`, false when it is not given."""
    text = _query(request, ("force",)).get("force", "false")
    if text not in ("true", "false"):
        raise invalid_parameter("force", "enum", "Expected true or false.")
    return text == "true"


def page(request: Request) -> Page:
    query = _query(request, ("status", "type", "limit", "after"))
    limit = positive_integer(query.get("limit", str(PAGE_DEFAULT)))
    if limit is None or limit > PAGE_MAX:
        raise invalid_parameter("limit", "range", f"Expected a whole number from 1 to {PAGE_MAX}.")
    after = positive_integer(query["after"]) if "after" in query else 0
    if after is None:
        raise invalid_parameter("after", "format", f"Expected a task id, a whole number from 1 to {TASK_ID_MAX}.")
    task_type = query.get("type", "")
    if "type" in query and not is_type_name(task_type):
        raise invalid_parameter(
            "type", "format", f"Expected the name of a task type, at most {TYPE_CHARS_MAX} characters."
        )
    status = _status(query["status"]) if "status" in query else TaskStatus.TASK_STATUS_UNSPECIFIED
    return Page(
        ListTasksRequest(status=status, type=task_type, limit=limit, after=after),
        {name: value for name, value in query.items() if name != "after"},
    )


def _status(name: str) -> "TaskStatus.ValueType":
    if name not in STATUSES:
        raise invalid_parameter("status", "enum", f"Expected one of {', '.join(STATUSES)}.{nearest(name, STATUSES)}")
    return STATUSES[name]


def _query(request: Request, known: Sequence[str]) -> dict[str, str]:
    if len(request.scope["query_string"]) > _QUERY_BYTES_MAX:
        raise UriTooLong(f"The query has more than {_QUERY_BYTES_MAX} bytes.")
    query: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in known:
            raise invalid_parameter(
                shown(name), "unknown_parameter", f"There is no such parameter.{nearest(name, known)}"
            )
        if name in query:
            raise invalid_parameter(name, "repeated", "This parameter is given more than once.")
        query[name] = value
    return query
