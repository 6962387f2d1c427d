"""What there is to know about the system: task types, counts, health, metrics."""

from collections.abc import Iterable

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gateway import openapi
from gateway.answers import json_answer
from gateway.core import Gateway
from gateway.metrics import CONTENT_TYPE, Sample, exposition
from gateway.parameters import no_query
from servicekit.task_views import STATUS_NAMES

router = APIRouter(tags=["system"])


@router.get("/api/task-types", **openapi.LIST_TASK_TYPES)
async def list_task_types(request: Request) -> Response:
    """The catalog: every task type with the schemas of its data and result."""
    no_query(request)
    catalog = _gateway(request).catalog
    await catalog.require(())
    return json_answer(catalog.describe_all())


@router.get("/api/task-types/{name}", **openapi.READ_TASK_TYPE)
async def read_task_type(request: Request, name: str) -> Response:
    """One task type."""
    no_query(request)
    catalog = _gateway(request).catalog
    await catalog.require((name,))
    return json_answer(catalog.describe(name))


@router.get("/api/stats", **openapi.READ_STATS)
async def read_stats(request: Request) -> Response:
    """Counts by status, live replicas, and how long the oldest task waits."""
    no_query(request)
    gateway = _gateway(request)
    stats = await gateway.management.get_stats()
    await gateway.backlog.refresh()
    counts = {STATUS_NAMES.get(item.status): item.count for item in stats.statuses}
    return json_answer(
        {
            "tasks": {name: counts.get(name, 0) for name in STATUS_NAMES.values()},
            "live_executors": stats.live_executors,
            "live_managers": stats.live_managers,
            "oldest_queued_seconds": stats.oldest_queued_ms / 1000,
            "backlog_tasks": gateway.backlog.tasks,
            "failures": [
                {"type": group.type, "error": group.error_code or None, "count": group.count}
                for group in stats.failures
            ],
        }
    )


@router.get("/healthz", **openapi.HEALTH)
async def healthz() -> Response:
    """The process answers."""
    return json_answer({"status": "ok"})


@router.get("/readyz", **openapi.READINESS)
async def readyz(request: Request) -> Response:
    """The gateway can take tasks; if not, why."""
    problems = _gateway(request).readiness.problems()
    return json_answer({"status": "unready" if problems else "ready", "problems": problems}, 503 if problems else 200)


@router.get("/metrics", **openapi.METRICS)
async def metrics(request: Request) -> Response:
    """Counters in the Prometheus text format."""
    return Response(exposition(_families(_gateway(request))), headers={"Content-Type": CONTENT_TYPE})


def _families(gateway: Gateway) -> Iterable[tuple[str, str, str, Iterable[Sample]]]:
    yield "headrace_http_requests_total", "counter", "Requests answered.", gateway.metrics.request_samples()
    yield "headrace_http_seconds_total", "counter", "Time spent on requests.", gateway.metrics.seconds_samples()
    accepted = [({"durability": name}, count) for name, count in gateway.submissions.counts.items()]
    yield "headrace_tasks_accepted_total", "counter", "Tasks accepted, by the store that keeps them.", accepted
    for name, kind, text, value in (
        ("headrace_submission_flushes_total", "counter", "Groups of tasks flushed.", gateway.submissions.flushes),
        ("headrace_backlog_tasks", "gauge", "Tasks in the Redis stream, as last heard.", gateway.backlog.tasks),
        ("headrace_backlog_bytes", "gauge", "Bytes in the Redis stream, as last heard.", gateway.backlog.bytes),
        ("headrace_redis_available", "gauge", "Whether Redis is used.", gateway.gate.available),
        ("headrace_update_feed_connected", "gauge", "Whether live updates arrive.", gateway.feed.connected),
        ("headrace_update_listeners", "gauge", "Subscriptions to live updates.", gateway.listeners),
        ("headrace_websockets_open", "gauge", "Open WebSockets.", len(gateway.live.sockets)),
        ("headrace_socketio_clients", "gauge", "Clients of Socket.IO.", len(gateway.socketio)),
        ("headrace_event_streams_open", "gauge", "Open streams of events.", len(gateway.live.event_streams)),
    ):
        yield name, kind, text, [({}, float(value))]


def _gateway(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway
