"""The words and examples of /openapi.json. The routes say what exists; this says what goes in and comes out."""

from typing import Any

from starlette.responses import Response

API_VERSION = "1"
OPENAPI_VERSION = "3.0.3"
DESCRIPTION = (
    "Submit tasks, follow them, read their results. Every error is `application/problem+json` (RFC 9457) with a stable "
    "`code` and, where fields are at fault, JSON pointers to them. A 503 may be repeated after `Retry-After` seconds. "
    "`/ws/tasks` and `/ws/tasks/{id}` are WebSockets with the events that `/api/events` tells."
)
TAGS = [
    {"name": "tasks", "description": "Submit, read, list, cancel, retry."},
    {"name": "workers", "description": "The worker processes of all execution replicas: list, add, remove."},
    {"name": "system", "description": "Task types, counts, health."},
]

Schema = dict[str, Any]

_TASK_EXAMPLE = {"type": "word_count", "data": {"text": "To be, or not to be, that is the question."}}
_TEXT: Schema = {"type": "string"}
_INTEGER: Schema = {"type": "integer"}
_NUMBER: Schema = {"type": "number"}
_OBJECT: Schema = {"type": "object"}
_TIME: Schema = {"type": "string", "format": "date-time", "nullable": True}
_ID: Schema = {"type": "integer", "format": "int64", "minimum": 1, "example": 1_000_001}
_STATUS: Schema = {
    "type": "string",
    "enum": ["scheduled", "queued", "processing", "retrying", "completed", "failed", "cancelled"],
}


def _maybe(schema: Schema) -> Schema:
    return {**schema, "nullable": True}


def _record(properties: dict[str, Schema], required: list[str] | None = None) -> Schema:
    return {"type": "object", "properties": properties, **({"required": required} if required else {})}


_BACKOFF: Schema = _record(
    {
        name: {"type": "number", "minimum": lowest, "maximum": highest, "description": text}
        for name, lowest, highest, text in (
            ("initial", 0.001, 86_400, "Seconds after the first failure, at most."),
            ("factor", 1, 10, "What each further failure multiplies them by."),
            ("maximum", 0.001, 86_400, "Seconds after any failure, at most; not below initial."),
        )
    }
)
NEW_TASK: Schema = {
    **_record(
        {
            "type": {"type": "string", "description": "A task type of GET /api/task-types."},
            "data": {"type": "object", "description": "Input; checked against the type's JSON Schema."},
            "priority": {
                "type": "integer",
                "minimum": 0,
                "maximum": 9,
                "default": 4,
                "description": "High runs first.",
            },
            "run_at": {"type": "string", "format": "date-time", "description": "Not before this time, with its zone."},
            "delay": {"type": "number", "minimum": 0, "description": "Seconds to wait; not together with run_at."},
            "max_attempts": {"type": "integer", "minimum": 1, "maximum": 20, "description": "Default: the type's."},
            "timeout": {"type": "number", "minimum": 1, "maximum": 3600, "description": "Seconds one attempt may run."},
            "soft_timeout": {
                "type": "number",
                "minimum": 0.1,
                "maximum": 3600,
                "description": "Seconds after which the handler is asked to give up; shorter than the timeout.",
            },
            "expires_in": {
                "type": "number",
                "minimum": 0,
                "exclusiveMinimum": True,
                "maximum": 31_536_000,
                "description": "Seconds after which a task that is due and was not started fails with `expired`.",
            },
            "backoff": {
                **_BACKOFF,
                "additionalProperties": False,
                "description": "How long a failed task waits: a random time up to initial × factor^(failures - 1), "
                "at most maximum. What is left out comes from the type, else 1 s, 2 and 300 s.",
            },
        },
        ["type", "data"],
    ),
    "additionalProperties": False,
    "example": _TASK_EXAMPLE,
}
_RECEIPT: Schema = {
    **_maybe(
        _record(
            {
                "ended_by": {
                    "type": "string",
                    "enum": ["not_started", "handler", "sigterm", "sigkill", "its_end", "session_end"],
                },
                "stopped_after": {"type": "number", "description": "Seconds from the request to the end."},
                "processes_gone": {"type": "boolean", "description": "No process runs for the attempt any more."},
            }
        )
    ),
    "description": "What ended the attempt after a cancel was asked for.",
}
_ERROR: dict[str, Schema] = {
    "code": _TEXT,
    "message": _TEXT,
    "exception": _maybe(_TEXT),
    "signal": _maybe(_INTEGER),
    "exit_code": _maybe(_INTEGER),
    "peak_memory_mib": {**_maybe(_NUMBER), "description": "The most memory that a worker that died ever held."},
    "receipt": _RECEIPT,
}
_LOGGED_ERROR: Schema = _record(
    {**_ERROR, "log_tail": {**_maybe(_TEXT), "description": "The last lines that the attempt printed."}}
)
_OUTCOMES = ["completed", "failed", "worker_died", "cancelled", "handed_back", "refused", "replica_lost"]
_ATTEMPT: Schema = _record(
    {
        "attempt": _INTEGER,
        "replica": _maybe(_TEXT),
        "worker": _maybe(_TEXT),
        "claimed_at": _TIME,
        "started_at": _TIME,
        "ended_at": _TIME,
        "outcome": {**_maybe(_TEXT), "enum": [*_OUTCOMES, None], "description": "null while it is in progress."},
        "error": _maybe(_LOGGED_ERROR),
    }
)
_LISTED_TASK: dict[str, Schema] = {
    "id": _ID,
    "type": {**_maybe(_TEXT), "description": "null while the task is accepted and not stored yet (revision 0)."},
    "status": _STATUS,
    "error": _maybe(_record(_ERROR)),
    "attempt": _INTEGER,
    "max_attempts": _maybe(_INTEGER),
    "starts": _INTEGER,
    "failures": _INTEGER,
    "worker_deaths": _INTEGER,
    "replica_losses": _INTEGER,
    "priority": _maybe(_INTEGER),
    "pool": _maybe(_TEXT),
    "timeout": _maybe(_NUMBER),
    "soft_timeout": _maybe(_NUMBER),
    "backoff": _maybe(_BACKOFF),
    "revision": {"type": "integer", "description": "Grows by one with every change of the task."},
    "accepted_at": _TIME,
    "created_at": _TIME,
    "run_at": _TIME,
    "claimed_at": _TIME,
    "started_at": _TIME,
    "executed_at": _TIME,
    "cancel_requested_at": _TIME,
    "finished_at": _TIME,
    "expires_at": {**_TIME, "description": "Not started by then, it fails with `expired`."},
    "replica": _maybe(_TEXT),
    "worker": _maybe(_TEXT),
}
_TASK: Schema = _record(
    {
        **_LISTED_TASK,
        "error": _maybe(_LOGGED_ERROR),
        "result": {"nullable": True, "description": "JSON of the type's result schema, once completed."},
        "result_unavailable": {"type": "boolean", "description": "A result exists and cannot be read at the moment."},
        "data": _maybe(_OBJECT),
        "attempts": {
            "type": "array",
            "items": _ATTEMPT,
            "description": "The newest 100, in their order, the one in progress included.",
        },
        "notice": {**_maybe(_TEXT), "description": "Why a task that waits cannot be run now, if there is a reason."},
    }
)
_TASK_TYPE: Schema = _record(
    {
        "name": _TEXT,
        "pool": _TEXT,
        "description": _TEXT,
        "data_schema": _OBJECT,
        "result_schema": _OBJECT,
        "timeout": _NUMBER,
        "soft_timeout": _maybe(_NUMBER),
        "max_attempts": _INTEGER,
        "backoff": _BACKOFF,
        "limits": {
            **_maybe(
                _record(
                    dict.fromkeys(("memory_mib", "cpu_seconds", "file_mib", "open_files"), _INTEGER),
                )
            ),
            "description": "What one attempt may use at most.",
        },
        "errors": {
            "type": "array",
            "items": _record({"code": _TEXT, "retry": {"type": "boolean"}, "description": _TEXT}),
            "description": "The failures that the type names, and whether they are worth a retry.",
        },
        "version": _TEXT,
        "replicas": {"type": "array", "items": _TEXT, "description": "Live replicas that run it."},
    }
)
_STATS: Schema = _record(
    {
        "tasks": {"type": "object", "additionalProperties": _INTEGER, "description": "Counts by status."},
        "live_executors": _INTEGER,
        "live_managers": _INTEGER,
        "oldest_queued_seconds": _NUMBER,
        "backlog_tasks": _INTEGER,
        "failures": {
            "type": "array",
            "items": _record({"type": _TEXT, "error": _maybe(_TEXT), "count": _INTEGER}),
            "description": "Failed tasks by type and error code, the largest groups first, at most 100.",
        },
    }
)
_PROBLEM: Schema = {
    **_record(
        {
            "type": _TEXT,
            "title": _TEXT,
            "status": _INTEGER,
            "code": _TEXT,
            "detail": _TEXT,
            "errors": {"type": "array", "items": _record({"field": _TEXT, "rule": _TEXT, "message": _TEXT})},
            "request_id": _TEXT,
        }
    ),
    "example": {
        "type": "about:blank",
        "title": "Unprocessable Entity",
        "status": 422,
        "code": "unknown_task_type",
        "detail": "/type: There is no task type 'word_cuont'. Did you mean 'word_count'?",
        "errors": [
            {
                "field": "/type",
                "rule": "unknown_task_type",
                "message": "There is no task type 'word_cuont'. Did you mean 'word_count'?",
            }
        ],
        "request_id": "5f0c4d1e9a3b7c28",
    },
}
_PROBLEMS = {
    status: {"description": text, "content": {"application/problem+json": {"schema": _PROBLEM}}}
    for status, text in (("4XX", "The request is refused; nothing was stored."), ("5XX", "Try again later."))
}
_KEY_PARAMETER = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "1 to 128 visible ASCII characters. A repeat with the same body gets the same ids and the header "
    "`Idempotency-Replayed: true`; one with another body gets 422.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 128},
}
_DURABILITY_HEADER = {
    "Headrace-Durability": {
        "description": "The store that keeps the tasks: `redis-aof`, `postgres`, or `redis-memory` for a Redis that "
        "is not set up to keep everything.",
        "schema": _TEXT,
    }
}


class _Plain(Response):
    """Leaves the description of the content to `responses`."""

    media_type = None


def _query(name: str, description: str, schema: Schema) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


def _repeated(name: str, description: str, schema: Schema) -> dict[str, Any]:
    return {**_query(name, description, {"type": "array", "items": schema}), "style": "form", "explode": True}


def _answer(description: str, schema: Schema, **extra: Any) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}, **extra}


def _operation(
    answers: dict[int | str, dict[str, Any]],
    *,
    body: Schema | None = None,
    body_required: bool = True,
    parameters: list[dict[str, Any]] | None = None,
    status: int = 200,
) -> dict[str, Any]:
    """Arguments of a route's decorator."""
    extra: dict[str, Any] = {}
    if body is not None:
        extra["requestBody"] = {"required": body_required, "content": {"application/json": {"schema": body}}}
    if parameters:
        extra["parameters"] = parameters
    return {
        "responses": {**answers, **_PROBLEMS},
        "openapi_extra": extra,
        "status_code": status,
        "response_class": _Plain,
    }


SUBMIT_TASK = _operation(
    {
        201: _answer(
            "Accepted and kept.",
            {**_record({"task_id": _ID}, ["task_id"]), "example": {"task_id": 1_000_001}},
            headers={"Location": {"description": "Where the task is read.", "schema": _TEXT}, **_DURABILITY_HEADER},
        )
    },
    body=NEW_TASK,
    parameters=[_KEY_PARAMETER],
    status=201,
)
SUBMIT_BATCH = _operation(
    {
        201: _answer(
            "All accepted and kept, in the order of the request.",
            {**_record({"task_ids": {"type": "array", "items": _ID}}), "example": {"task_ids": [1_000_001, 1_000_002]}},
            headers=_DURABILITY_HEADER,
        )
    },
    body={
        "type": "array",
        "minItems": 1,
        "maxItems": 1000,
        "items": NEW_TASK,
        "example": [_TASK_EXAMPLE, {"type": "calculate_statistics", "data": {"values": [1, 2, 3.5]}, "priority": 7}],
    },
    parameters=[_KEY_PARAMETER],
    status=201,
)
READ_TASK = _operation(
    {200: _answer("The task.", _TASK)},
    parameters=[
        _query(
            "wait",
            "Answer when the task has ended, at the latest after so many seconds.",
            {"type": "number", "minimum": 0, "maximum": 60, "default": 0},
        )
    ],
)
READ_LOGS = _operation(
    {
        200: _answer(
            "The logs, of the newest attempts that left one, at most 20, in their order.",
            {
                "type": "array",
                "items": _record({"attempt": _INTEGER, "log": _TEXT, "stored_at": _TIME}, ["attempt", "log"]),
            },
        )
    }
)
_CURSOR = _query("cursor", "The id of an event: go on after it. The header Last-Event-ID wins over it.", _TEXT)
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events `snapshot`, `task_update`, `reset` and `error`, each with one JSON object as its data.",
        "content": {"text/event-stream": {"schema": _TEXT}},
    }
}
FOLLOW_TASKS = _operation(
    _EVENTS,
    parameters=[
        _repeated("type", "Only tasks of these types.", _TEXT),
        _repeated("status", "Only changes to these statuses.", _STATUS),
        _repeated("id", "Only these tasks, at most 1,000.", _ID),
        _CURSOR,
    ],
)
FOLLOW_TASK = _operation(
    {**_EVENTS, 204: {"description": "The task has ended, and its final event was told: there is no more."}},
    parameters=[_CURSOR],
)
LIST_TASKS = _operation(
    {
        200: _answer(
            "Tasks, newest first, without data and results.",
            {"type": "array", "items": _record(_LISTED_TASK)},
            headers={"Link": {"description": 'The next page, as `<…>; rel="next"`.', "schema": _TEXT}},
        )
    },
    parameters=[
        _query("status", "Only tasks in this status.", _STATUS),
        _query("type", "Only tasks of this type.", _TEXT),
        _query("limit", "Tasks on a page.", {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}),
        _query("after", "Only tasks with smaller ids than this.", _ID),
    ],
)
_MESSAGE = _record({"message": _TEXT}, ["message"])
DELETE_TASK = _operation(
    {
        200: _answer("Cancelled, or removed.", _MESSAGE),
        202: _answer("The cancel is recorded; the task still runs.", _MESSAGE),
    }
)
RETRY_TASK = _operation({200: _answer("The task, started again.", _TASK)})
_NAME: Schema = {"type": "string", "minLength": 1, "maxLength": 200}
_MOMENT: Schema = {"type": "string", "format": "date-time"}
RETRY_TASKS = _operation(
    {
        200: _answer(
            "The tasks that were started again; with `dry_run`, those that would be.",
            {
                **_record(
                    {
                        "dry_run": {"type": "boolean"},
                        "task_ids": {"type": "array", "items": _ID},
                        "count": _INTEGER,
                        "more": {"type": "boolean", "description": "Further tasks fit the filter."},
                    }
                ),
                "example": {"dry_run": True, "task_ids": [1_000_002, 1_000_001], "count": 2, "more": False},
            },
        )
    },
    body={
        **_record(
            {
                "status": {"type": "string", "enum": ["failed", "cancelled"], "default": "failed"},
                "type": {**_NAME, "description": "Only tasks of this type."},
                "error": {**_NAME, "description": "Only tasks that ended with this error code."},
                "finished_after": {**_MOMENT, "description": "Only tasks that ended at or after this time."},
                "finished_before": {**_MOMENT, "description": "Only tasks that ended before this time."},
                "limit": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
                "dry_run": {"type": "boolean", "default": True, "description": "Only say which tasks fit."},
            }
        ),
        "additionalProperties": False,
        "example": {"type": "word_count", "error": "timeout", "dry_run": True},
    },
)
_WORKER: Schema = {
    **_record(
        {
            "id": {"type": "string", "description": "Begins with the name of its replica; is not used again."},
            "startTime": {"type": "string", "format": "date-time"},
            "replica": _TEXT,
            "pid": _INTEGER,
            "pool": _TEXT,
            "state": {
                **_maybe(_TEXT),
                "enum": ["starting", "ready", "busy", "draining", "ending", None],
                "description": "`draining`: takes no more tasks, and ends when those it runs have ended. null from a "
                "replica of an older version.",
            },
            "slots": {"type": "integer", "description": "Tasks that it runs at once."},
            "tasks": {
                "type": "array",
                "items": _record(
                    {
                        "id": _ID,
                        "attempt": _INTEGER,
                        "type": _TEXT,
                        "running_for": {"type": "number", "description": "Seconds."},
                    },
                    ["id", "attempt", "type", "running_for"],
                ),
                "description": "What it runs now.",
            },
            "tasks_done": {"type": "integer", "description": "Attempts that have ended in it."},
            "memory_mib": {**_maybe(_NUMBER), "description": "Resident memory; null while the process ends."},
        },
        ["id", "startTime", "replica", "pid", "pool", "slots", "tasks", "tasks_done"],
    ),
    "example": {
        "id": "execution-0-cpu-3fa91",
        "startTime": "2030-01-31T12:00:00.250Z",
        "replica": "execution-0",
        "pid": 4711,
        "pool": "cpu",
        "state": "busy",
        "slots": 1,
        "tasks": [{"id": 1_000_001, "attempt": 1, "type": "large_file_processing", "running_for": 2.5}],
        "tasks_done": 42,
        "memory_mib": 61.3,
    },
}
LIST_WORKERS = _operation(
    {
        200: _answer(
            "The workers of all replicas that answer. 503 if none does.",
            {"type": "array", "items": _WORKER},
            headers={
                "Headrace-Unreachable": {
                    "description": "The replicas, separated by commas, that did not answer within 2 s: their workers "
                    "are missing from the list. Left out when there are none.",
                    "schema": _TEXT,
                }
            },
        )
    }
)
READ_WORKER = _operation({200: _answer("The worker.", _WORKER)})
CREATE_WORKER = _operation(
    {
        201: _answer(
            "Started. It takes tasks when it is ready, within a second as a rule.",
            {**_record({"workerId": _TEXT}, ["workerId"]), "example": {"workerId": "execution-0-cpu-3fa93"}},
            headers={"Location": {"description": "Where the worker is read.", "schema": _TEXT}},
        )
    },
    body={
        **_record(
            {
                "replica": {**_maybe(_TEXT), "description": "Default: that with the fewest workers in the pool."},
                "pool": {**_maybe(_TEXT), "default": "cpu"},
            }
        ),
        "additionalProperties": False,
        "example": {"replica": "execution-0", "pool": "cpu"},
    },
    body_required=False,
    status=201,
)
DELETE_WORKER = _operation(
    {
        200: _answer(
            "It ends, at once or when what it runs has ended. 409 `last_worker` for the last one of a pool.",
            {
                **_MESSAGE,
                "example": {
                    "message": "Worker execution-0-cpu-3fa91 takes no more tasks, and ends when the task that it runs "
                    "has ended."
                },
            },
        )
    },
    parameters=[
        _query(
            "force",
            "Kill it; what it ran starts again in another one, which counts as no failure.",
            {"type": "boolean", "default": False},
        )
    ],
)
LIST_TASK_TYPES = _operation({200: _answer("The catalog.", {"type": "array", "items": _TASK_TYPE})})
READ_TASK_TYPE = _operation({200: _answer("The task type.", _TASK_TYPE)})
READ_STATS = _operation({200: _answer("Counts.", _STATS)})
HEALTH = _operation({200: _answer("It answers.", _record({"status": _TEXT}))})
READINESS = _operation(
    {200: _answer("It takes tasks.", _record({"status": _TEXT, "problems": _OBJECT}))},
)
METRICS = _operation({200: {"description": "Counters.", "content": {"text/plain": {"schema": _TEXT}}}})
