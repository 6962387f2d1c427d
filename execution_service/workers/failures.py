"""What an exception of a handler means for its attempt, and how it is told to people."""

import signal
import traceback

from execution_service.workers.outcomes import AttemptError, CancelReceipt, EndedBy, Outcome
from headrace.tasks import PermanentError, SoftTimeoutError, TransientError, UnstorableResultError

MESSAGE_BYTES_MAX = 16 * 1024
_TRACEBACK_CHARACTERS = 4000

_ENDED_BY = {
    EndedBy.HANDLER: "The handler stopped {after} after it was asked to",
    EndedBy.SIGTERM: "The attempt ended on SIGTERM, {after} after the cancel was asked for",
    EndedBy.SIGKILL: "The attempt did not stop: its worker process was killed {after} after the cancel was asked for",
    EndedBy.ITS_END: "The attempt ended otherwise, {after} after the cancel was asked for",
}


def cancelled_error(receipt: CancelReceipt) -> AttemptError:
    """Return the error of an attempt that was cancelled, with its receipt, told to people as well."""
    if receipt.ended_by is EndedBy.NOT_STARTED:
        return AttemptError("cancelled", "Cancelled before it was started.", receipt=receipt)
    text = _ENDED_BY[receipt.ended_by].format(after=f"{receipt.stopped_after:.2f} s")
    gone = "no process of it is left" if receipt.processes_gone else "whether all its processes are gone is not known"
    return AttemptError("cancelled", f"{text}; {gone}.", receipt=receipt)


NEVER_STARTED = cancelled_error(CancelReceipt(EndedBy.NOT_STARTED, 0.0, processes_gone=True))


def timeout_error(seconds: float) -> AttemptError:
    """Return the error of an attempt that took longer than its timeout."""
    return AttemptError("timeout", f"The attempt took longer than its timeout of {seconds:g} s.")


def cpu_error() -> AttemptError:
    """Return the error of an attempt that used more processor time than its type may."""
    return AttemptError("cpu_limit", "The attempt used more processor time than its type may.", signal=signal.SIGXCPU)


def explain(error: BaseException) -> tuple[Outcome, AttemptError]:
    """Return how an attempt ended whose handler raised `error`.

    SystemExit and KeyboardInterrupt are no exception to this: a handler does not decide that its worker ends.
    """
    name = exception_name(error)
    if isinstance(error, PermanentError):
        return Outcome.FAILED_FOR_GOOD, AttemptError(error.code, message_of(error), name)
    if isinstance(error, SoftTimeoutError):
        text = message_of(error) or "The attempt took longer than its soft timeout."
        return Outcome.FAILED, AttemptError("soft_timeout", text)
    if isinstance(error, TransientError):
        return Outcome.FAILED, AttemptError(error.code, message_of(error), name)
    if isinstance(error, MemoryError):
        return Outcome.FAILED, AttemptError(
            "memory_limit", "The attempt needed more memory than its type may use.", name
        )
    if isinstance(error, UnstorableResultError):
        return Outcome.FAILED_FOR_GOOD, AttemptError("unstorable_result", message_of(error))
    return Outcome.FAILED, AttemptError("handler_error", message_of(error), name)


def retry_after_of(error: BaseException) -> float | None:
    """Return after how many seconds the handler asked to be started again, if it did."""
    return error.retry_after if isinstance(error, TransientError) else None


def exception_name(error: BaseException) -> str:
    """Return the class of the exception, with its module unless that is Python itself."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return clean_text(name, 200)


def message_of(error: BaseException) -> str:
    """Return the text of the exception, whatever its `__str__` does."""
    try:
        text = str(error)
    except BaseException as broken:  # noqa: BLE001 - a broken __str__ is the handler's, and may raise anything
        text = f"<the text of the exception cannot be read: {type(broken).__name__}>"
    return clean_text(text, MESSAGE_BYTES_MAX)


def traceback_of(error: BaseException) -> str:
    """Return the end of the traceback for the log."""
    try:
        text = "".join(traceback.format_exception(error))
    except BaseException:  # noqa: BLE001 - formatting calls the exception's own __str__
        text = "".join(traceback.format_tb(error.__traceback__))
    return clean_text(text[-_TRACEBACK_CHARACTERS:], MESSAGE_BYTES_MAX)


def clean_text(text: str, bytes_max: int) -> str:
    """Return the text without what cannot be stored (NUL, lone surrogates), cut to `bytes_max` bytes of UTF-8."""
    body = text[:bytes_max].encode("utf-8", "replace").replace(b"\0", b"?")
    return body[:bytes_max].decode("utf-8", "ignore")
