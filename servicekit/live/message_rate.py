"""How many messages a client may send."""

from enum import Enum, auto

MESSAGES_MAX = 50
# So many refused ones, without a second of peace between them, are one client too eager.
REFUSED_MAX = 50
_WINDOW_SECONDS = 1.0


class Verdict(Enum):
    TAKEN = auto()
    # The first one too many in this second: say so.
    REFUSED = auto()
    # Not worth another word.
    DROPPED = auto()
    # The client goes on and on.
    OVER = auto()


class MessageRate:
    """Counts the messages of one client in each second."""

    def __init__(self) -> None:
        self._since = 0.0
        self._taken = 0
        self._refused = 0
        self._refused_now = 0

    def note(self, now: float) -> Verdict:
        if now - self._since >= _WINDOW_SECONDS:
            if not self._refused_now:
                self._refused = 0
            self._since, self._taken, self._refused_now = now, 0, 0
        if self._taken < MESSAGES_MAX:
            self._taken += 1
            return Verdict.TAKEN
        self._refused += 1
        self._refused_now += 1
        if self._refused > REFUSED_MAX:
            return Verdict.OVER
        return Verdict.REFUSED if self._refused_now == 1 else Verdict.DROPPED
