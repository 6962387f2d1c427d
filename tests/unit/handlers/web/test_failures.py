"""Every failure has one code, and the table that says so speaks of exceptions that exist."""

import builtins
import ssl

import httpcore
import pytest

from execution_service.handlers.web.failures import (
    FAILURES,
    WEB_ERRORS,
    failure,
    failure_of_exception,
    failure_of_status,
)
from headrace.tasks import PermanentError, TransientError

_STATUSES = {
    "T32-204": (204, "malformed_response", True),
    "T32-206": (206, "malformed_response", True),
    "T32-304": (304, "malformed_response", True),
    "T32-400": (400, "upstream_refused", False),
    "T32-401": (401, "upstream_refused", False),
    "T32-404": (404, "upstream_refused", False),
    "T32-408": (408, "upstream_timeout", True),
    "T32-429": (429, "rate_limited", True),
    "T32-500": (500, "upstream_error", True),
    "T32-503": (503, "upstream_error", True),
    "T32-599": (599, "upstream_error", True),
}


@pytest.mark.parametrize(("status", "code", "retry"), _STATUSES.values(), ids=_STATUSES)
def test_a_status_has_its_code(status: int, code: str, retry: bool) -> None:
    error = failure_of_status(status)
    assert (error.code, isinstance(error, TransientError)) == (code, retry)
    assert str(status) in str(error)


def test_the_reason_of_the_api_is_told() -> None:
    assert str(failure_of_status(400, "It is Monday")).endswith("Its status was 400: It is Monday.")


def test_the_codes_are_those_that_task_types_declare() -> None:
    codes = [row.code for row in FAILURES]
    assert len(set(codes)) == len(codes)
    assert [(error.code, error.retry) for error in WEB_ERRORS] == [(row.code, row.retry) for row in FAILURES]
    for row in FAILURES:
        assert isinstance(failure(row.code), TransientError if row.retry else PermanentError)


def test_every_exception_of_the_table_exists() -> None:
    for row in FAILURES:
        for name in row.exceptions:
            kinds = [getattr(module, name) for module in (httpcore, ssl, builtins) if hasattr(module, name)]
            assert kinds, name
            assert failure_of_exception(kinds[0]("")).code == row.code


@pytest.mark.parametrize(
    ("error", "cause", "code"),
    [
        (httpcore.ConnectError("10.0.0.1"), ssl.SSLCertVerificationError("10.0.0.1"), "invalid_certificate"),
        (httpcore.ConnectError("10.0.0.1"), TimeoutError("10.0.0.1"), "upstream_timeout"),
        (TimeoutError("10.0.0.1"), ssl.SSLWantReadError("10.0.0.1"), "upstream_timeout"),
        (httpcore.ReadError("10.0.0.1"), ConnectionResetError("10.0.0.1"), "upstream_unreachable"),
    ],
)
def test_causes_count_and_what_they_say_is_not_told(error: Exception, cause: Exception, code: str) -> None:
    error.__context__ = cause
    found = failure_of_exception(error)
    assert found.code == code
    assert "10.0.0.1" not in str(found)
