"""One id for each request, given by the caller or made here, shown in every answer and log line about it."""

import re
import secrets
from collections.abc import MutableMapping
from typing import Any

HEADER = b"x-request-id"
_KEY = "headrace.request_id"
_ACCEPTED = re.compile(rb"[A-Za-z0-9._:-]{1,64}")


def begin_request(scope: MutableMapping[str, Any]) -> str:
    """Take the caller's id if it is harmless, else make one, and keep it in the scope."""
    given = next((value for name, value in scope["headers"] if name == HEADER), b"")
    request_id: str = given.decode() if _ACCEPTED.fullmatch(given) else secrets.token_hex(8)
    scope[_KEY] = request_id
    return request_id


def request_id_of(scope: MutableMapping[str, Any]) -> str | None:
    return scope.get(_KEY)
