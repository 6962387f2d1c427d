"""`/api/workers`: the worker processes of all execution replicas; list, add, remove."""

from urllib.parse import quote

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gateway import openapi
from gateway.answers import json_answer
from gateway.bodies import WorkerBody, decode_worker, is_empty, read_json_body
from gateway.core import Gateway
from gateway.parameters import force, no_query
from gateway.worker_views import removal_words, worker_view

router = APIRouter(tags=["workers"])


@router.get("/api/workers", **openapi.LIST_WORKERS)
async def list_workers(request: Request) -> Response:
    """The workers of all replicas that answer within 2 s; the header `Headrace-Unreachable` names the others."""
    no_query(request)
    listed = await _gateway(request).execution.list_workers()
    headers = {}
    if listed.unreachable:
        headers["Headrace-Unreachable"] = ", ".join(quote(name, safe=_PLAIN) for name in listed.unreachable)
    return json_answer([worker_view(worker) for worker in listed.workers], headers=headers)


@router.get("/api/workers/{worker_id}", **openapi.READ_WORKER)
async def read_worker(request: Request, worker_id: str) -> Response:
    """One worker."""
    no_query(request)
    return json_answer(worker_view(await _gateway(request).execution.get_worker(worker_id)))


@router.post("/api/workers", **openapi.CREATE_WORKER)
async def create_worker(request: Request) -> Response:
    """Start one more worker, on the replica with the fewest in the pool unless one is named."""
    no_query(request)
    body = await _wish(request)
    worker = await _gateway(request).execution.create_worker(pool=body.pool, replica=body.replica)
    location = f"/api/workers/{quote(worker.worker_id, safe='')}"
    return json_answer({"workerId": worker.worker_id}, 201, {"Location": location})


@router.delete("/api/workers/{worker_id}", **openapi.DELETE_WORKER)
async def delete_worker(request: Request, worker_id: str) -> Response:
    """Take a worker out of service when what it runs has ended; with `force`, kill it, and have that run elsewhere."""
    at_once = force(request)
    worker = await _gateway(request).execution.delete_worker(worker_id, force=at_once)
    return json_answer({"message": removal_words(worker)})


async def _wish(request: Request) -> WorkerBody:
    """What the body asks for; there need not be one."""
    if is_empty(request):
        return WorkerBody()
    gateway = _gateway(request)
    settings = gateway.settings
    with gateway.body_budget.hold() as hold:
        body = await read_json_body(request, hold, bytes_max=_BODY_BYTES_MAX, timeout=settings.body_timeout)
        return decode_worker(body)


def _gateway(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway


_BODY_BYTES_MAX = 64 * 1024
# Names of replicas are any text; in a header they are escaped as in a URL, but for what needs no escape there.
_PLAIN = " !#$&'()*+./:;=?@[]^_`{|}~"
