"""A cluster that runs, as programs see it that use it. Calls return when there is an answer."""

import time
from collections.abc import Mapping
from typing import Any

import httpx

WAIT_SECONDS_MAX = 10.0
RETRY_SECONDS = 0.1
_FINAL = frozenset({"completed", "failed", "cancelled"})


class TaskRefusedError(Exception):
    """The gateway did not accept a task; `problem` is its answer: `status`, `code`, `detail`, `errors` by field."""

    def __init__(self, type_name: str, problem: Mapping[str, Any]) -> None:
        # The detail tells the first of the errors.
        more = [f"{error['field']}: {error['message']}" for error in problem["errors"][1:]]
        super().__init__("\n".join((f"{type_name} was refused ({problem['status']}): {problem['detail']}", *more)))
        self.problem = problem


class TaskFailedError(Exception):
    """A task did not complete; `task` is what the API says of it, `code` the code of its error, if it has one."""

    def __init__(self, task: Mapping[str, Any]) -> None:
        error: Mapping[str, Any] = task["error"] or {}
        exception = f" ({error['exception']})" if error.get("exception") else ""
        cause = f": {error['code']}: {error['message']}{exception}" if error else ""
        super().__init__(f"task {task['id']} ({task['type']}) ended as {task['status']}{cause}")
        self.task = task
        self.code: str | None = error.get("code")


class RunningCluster:
    """Submits tasks over REST and waits for their ends."""

    def __init__(self, http: httpx.Client) -> None:
        """The client knows the gateway's URL, and waits longer for an answer than WAIT_SECONDS_MAX."""
        self.url = str(http.base_url).rstrip("/")
        self._http = http

    def submit(self, type_name: str, data: Mapping[str, Any], **options: Any) -> int:
        """Submit a task and return its id. Options are those of the API: `delay`, `priority`, `max_attempts`, ...

        Raises TaskRefusedError when the gateway does not take it, as for data that the type's schema does not allow.
        """
        answer = self._http.post("/api/tasks", json={"type": type_name, "data": data, **options})
        if answer.is_error:
            raise TaskRefusedError(type_name, answer.json())
        task_id: int = answer.json()["task_id"]
        return task_id

    def wait(self, task_id: int, *, timeout: float = 30) -> dict[str, Any]:
        """Return what the API says of the task when it has ended, however that was. Raises TimeoutError."""
        deadline = time.monotonic() + timeout
        status = "unknown"
        while (seconds := deadline - time.monotonic()) > 0:
            wait = f"{min(seconds, WAIT_SECONDS_MAX):.3f}"
            answer = self._http.get(f"/api/tasks/{task_id}", params={"wait": wait})
            if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
                time.sleep(RETRY_SECONDS)  # a service is catching up, and the task is kept meanwhile
                continue
            answer.raise_for_status()
            task: dict[str, Any] = answer.json()
            status = task["status"]
            if status in _FINAL:
                return task
        raise TimeoutError(f"task {task_id} is {status} after {timeout:g} s")

    def run(self, type_name: str, data: Mapping[str, Any], *, timeout: float = 30, **options: Any) -> Any:
        """Submit a task, wait up to `timeout` seconds for its end, and return its result.

        Raises TaskFailedError when it has ended without one.
        """
        task = self.wait(self.submit(type_name, data, **options), timeout=timeout)
        if task["status"] != "completed":
            raise TaskFailedError(task)
        return task["result"]
