"""`/api/events`, `/api/tasks/{id}/events`: live streams as server-sent events."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gateway import openapi
from servicekit.live import sse

router = APIRouter(tags=["tasks"])


@router.get("/api/events", **openapi.FOLLOW_TASKS)
async def follow_tasks(request: Request) -> Response:
    """Follow all tasks, or those that fit: their present state, then every change."""
    return await sse.follow_tasks(request)


@router.get("/api/tasks/{task_id}/events", **openapi.FOLLOW_TASK)
async def follow_task(request: Request, task_id: str) -> Response:
    """Follow one task to its end."""
    return await sse.follow_task(request, task_id)
