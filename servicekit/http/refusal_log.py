"""One log line for refused requests, and no flood of them: each code is logged at most once a second."""

import time

import structlog
from starlette.requests import Request

from servicekit.errors import HeadraceError
from servicekit.http.request_ids import request_id_of

log = structlog.stdlib.get_logger(__name__)

_AGAIN_SECONDS = 1.0
# More codes than there are.
_CODES_MAX = 200


class RefusalLog:
    def __init__(self) -> None:
        self._logged_at: dict[str, float] = {}
        self._silent: dict[str, int] = {}

    def note(self, request: Request, error: HeadraceError) -> None:
        now = time.monotonic()
        if now - self._logged_at.get(error.code, -_AGAIN_SECONDS) < _AGAIN_SECONDS:
            self._silent[error.code] = self._silent.get(error.code, 0) + 1
            return
        if len(self._logged_at) >= _CODES_MAX:
            self._logged_at.clear()
        self._logged_at[error.code] = now
        log.info(
            "request_refused",
            code=error.code,
            status=error.http_status,
            method=request.method,
            path=request.url.path[:200],
            request_id=request_id_of(request.scope),
            not_logged=self._silent.pop(error.code, 0),
        )
