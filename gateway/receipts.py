"""How a cancel came true, in words."""

from headrace.v1.task_pb2 import CancelReceipt

_WORDS: dict[int, str] = {
    CancelReceipt.ENDED_BY_NOT_STARTED: "before it was started",
    CancelReceipt.ENDED_BY_HANDLER: "its handler stopped",
    CancelReceipt.ENDED_BY_SIGTERM: "its handler stopped on SIGTERM",
    CancelReceipt.ENDED_BY_SIGKILL: "its worker was killed",
    CancelReceipt.ENDED_BY_ITS_END: "its attempt ended by itself",
    CancelReceipt.ENDED_BY_SESSION_END: "the session of its replica ended",
}


def receipt_words(receipt: CancelReceipt | None) -> str:
    """What follows "was cancelled" in a sentence; nothing where nothing is known."""
    words = _WORDS.get(receipt.ended_by) if receipt is not None else None
    if receipt is None or words is None:
        return ""
    if receipt.ended_by == CancelReceipt.ENDED_BY_NOT_STARTED:
        return f" {words}"
    after = f" after {receipt.stopped_after_ms / 1000:.1f} s" if receipt.stopped_after_ms else ""
    return f": {words}{after}"
