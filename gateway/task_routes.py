"""`/api/tasks`: submit, read, list, delete, retry."""

from urllib.parse import urlencode

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gateway import openapi
from gateway.answers import json_answer
from gateway.bodies import decode_retry, decode_task, decode_tasks, read_json_body
from gateway.body_budget import BodyHold
from gateway.core import Gateway
from gateway.idempotency import idempotency_key, mark_batch, mark_one
from gateway.parameters import no_query, page, wait_seconds
from gateway.receipts import receipt_words
from gateway.retry_filter import retry_request
from gateway.submissions import Accepted
from gateway.views import listed_task_view, log_view, task_view
from servicekit.errors import NotFound
from servicekit.parameters import parse_task_id

router = APIRouter(tags=["tasks"])


@router.post("/api/tasks", **openapi.SUBMIT_TASK)
async def submit_task(request: Request) -> Response:
    """Submit one task. It is kept from the moment of the answer on, whatever fails afterwards."""
    no_query(request)
    gateway = _gateway(request)
    key = idempotency_key(request.headers.getlist("idempotency-key"))
    with gateway.body_budget.hold() as hold:
        body = decode_task(await _body(request, hold))
        submission = await gateway.admission.admit_one(body)
        if key is None:
            accepted = await gateway.submissions.submit([submission])
        else:
            mark_one(submission, body, key)
            accepted = await gateway.submissions.submit_keyed([submission])
    task_id = accepted.task_ids[0]
    return json_answer({"task_id": task_id}, 201, {"Location": f"/api/tasks/{task_id}", **_acceptance(accepted)})


@router.post("/api/tasks/batch", **openapi.SUBMIT_BATCH)
async def submit_batch(request: Request) -> Response:
    """Submit up to 1,000 tasks: all of them, or none."""
    no_query(request)
    gateway = _gateway(request)
    key = idempotency_key(request.headers.getlist("idempotency-key"))
    with gateway.body_budget.hold() as hold:
        bodies = decode_tasks(await _body(request, hold))
        submissions = await gateway.admission.admit_many(bodies)
        if key is None:
            accepted = await gateway.submissions.submit(submissions)
        else:
            mark_batch(submissions, bodies, key)
            accepted = await gateway.submissions.submit_keyed(submissions)
    return json_answer({"task_ids": accepted.task_ids}, 201, _acceptance(accepted))


@router.get("/api/tasks/{task_id}", **openapi.READ_TASK)
async def read_task(request: Request, task_id: str) -> Response:
    """Read one task with its result; with `wait`, when it has ended or after so many seconds."""
    gateway = _gateway(request)
    number = parse_task_id(task_id)
    seconds = wait_seconds(request)
    task = await (gateway.waiter.wait(number, seconds=seconds) if seconds else gateway.reader.read(number))
    return json_answer(task_view(task, notice=gateway.catalog.waiting_notice(task)))


@router.get("/api/tasks/{task_id}/logs", **openapi.READ_LOGS)
async def read_logs(request: Request, task_id: str) -> Response:
    """What the attempts of a task printed and logged, the last 64 KiB of each."""
    no_query(request)
    number = parse_task_id(task_id)
    gateway = _gateway(request)
    try:
        logs = await gateway.management.get_task_logs(number)
    except NotFound:
        await gateway.reader.read(number)  # says the same, unless the task was accepted and is not stored yet
        logs = ()
    return json_answer([log_view(log) for log in logs])


@router.get("/api/tasks", **openapi.LIST_TASKS)
async def list_tasks(request: Request) -> Response:
    """List tasks, newest first. The `Link` header names the next page."""
    wanted = page(request)
    response = await _gateway(request).management.list_tasks(wanted.request)
    headers = {}
    if response.next_after:
        query = urlencode({**wanted.filters, "after": response.next_after})
        headers["Link"] = f'</api/tasks?{query}>; rel="next"'
    return json_answer([listed_task_view(task) for task in response.tasks], headers=headers)


@router.delete("/api/tasks/{task_id}", **openapi.DELETE_TASK)
async def delete_task(request: Request, task_id: str) -> Response:
    """Cancel a task that has not ended, or remove one that has."""
    no_query(request)
    number = parse_task_id(task_id)
    deleted = await _gateway(request).changes.delete(number)
    if deleted.how == "cancel_requested":
        return json_answer({"message": f"The cancel of task {number} is on its way; it has not stopped yet."}, 202)
    return json_answer({"message": f"Task {number} was {deleted.how}{receipt_words(deleted.receipt)}."})


@router.post("/api/tasks/retry", **openapi.RETRY_TASKS)
async def retry_tasks(request: Request) -> Response:
    """Start failed or cancelled tasks again by a filter, newest first; unless `dry_run` is false, only say which."""
    no_query(request)
    gateway = _gateway(request)
    with gateway.body_budget.hold() as hold:
        wanted = retry_request(decode_retry(await _body(request, hold)))
    response = await gateway.management.retry_tasks(wanted)
    task_ids = list(response.task_ids)
    return json_answer({"dry_run": wanted.dry_run, "task_ids": task_ids, "count": len(task_ids), "more": response.more})


@router.post("/api/tasks/{task_id}/retry", **openapi.RETRY_TASK)
async def retry_task(request: Request, task_id: str) -> Response:
    """Start a task that has ended again, with all its attempts."""
    no_query(request)
    return json_answer(task_view(await _gateway(request).changes.retry(parse_task_id(task_id))))


def _gateway(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway


async def _body(request: Request, hold: BodyHold) -> bytes:
    settings = _gateway(request).settings
    return await read_json_body(request, hold, bytes_max=settings.body_bytes_max, timeout=settings.body_timeout)


def _acceptance(accepted: Accepted) -> dict[str, str]:
    """Which store keeps the tasks, and whether it kept them before."""
    headers: dict[str, str] = {"Headrace-Durability": accepted.durability}
    if accepted.replayed:
        headers["Idempotency-Replayed"] = "true"
    return headers
