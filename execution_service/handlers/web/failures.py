"""What can go wrong with a call to an API: one table of codes, whether another attempt may help, and their causes."""

from collections.abc import Collection
from dataclasses import dataclass

from headrace.tasks import CodedError, ErrorKind, PermanentError, TransientError


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A kind of failure: the statuses that mean it, and the exceptions by the names of their classes.

    By name, so that describing a task type does not load the HTTP library.
    """

    code: str
    retry: bool
    meaning: str
    statuses: Collection[int] = ()
    exceptions: Collection[str] = ()


# The first row that names a status or an exception holds; what no row names is `malformed_response`.
FAILURES = (
    Failure(
        code="unsafe_url",
        retry=False,
        meaning="The URL of the API, or one that it redirects to, must not be called.",
    ),
    Failure(code="too_many_redirects", retry=False, meaning="The API redirects too often."),
    Failure(code="response_too_large", retry=False, meaning="The answer of the API is too large."),
    Failure(
        code="invalid_certificate",
        retry=False,
        meaning="The API did not prove its identity: its TLS certificate is not valid.",
        exceptions=("SSLCertVerificationError",),
    ),
    Failure(
        code="upstream_timeout",
        retry=True,
        meaning="The API did not answer in time.",
        statuses=(408,),
        exceptions=("TimeoutException", "TimeoutError"),
    ),
    Failure(
        code="upstream_unreachable",
        retry=True,
        meaning="The API cannot be reached: its name is not known, or the connection was refused or broke.",
        exceptions=("NetworkError", "OSError"),
    ),
    Failure(code="rate_limited", retry=True, meaning="The API was asked too often.", statuses=(429,)),
    Failure(code="upstream_error", retry=True, meaning="The API failed.", statuses=range(500, 600)),
    Failure(code="upstream_refused", retry=False, meaning="The API refused the request.", statuses=range(400, 500)),
    Failure(
        code="malformed_response",
        retry=True,
        meaning="The answer of the API is not what it should be.",
        exceptions=("ProtocolError",),
    ),
)

WEB_ERRORS = tuple(ErrorKind(row.code, row.retry, row.meaning) for row in FAILURES)

_BY_CODE = {row.code: row for row in FAILURES}


def failure(code: str, detail: str = "") -> CodedError:
    """Return the error of that code, to be raised. `detail` is read by users: no addresses, nothing unbounded."""
    row = _BY_CODE[code]
    return (TransientError if row.retry else PermanentError)(code, f"{row.meaning} {detail}".rstrip())


def failure_of_status(status: int, reason: str = "") -> CodedError:
    """Return the error that an answer means whose status is neither 200 nor a redirect."""
    code = next((row.code for row in FAILURES if status in row.statuses), "malformed_response")
    return failure(code, f"Its status was {status}{f': {reason}' if reason else ''}.")


def failure_of_exception(error: BaseException) -> CodedError:
    """Return the error that an exception means, or one of those that led to it."""
    # The message of an exception may name addresses, so nothing of it is told to users; the log has it all.
    names = set()
    cause: BaseException | None = error
    while cause is not None:
        names |= {kind.__name__ for kind in type(cause).__mro__}
        cause = cause.__context__
    return failure(next((row.code for row in FAILURES if names & {*row.exceptions}), "malformed_response"))
