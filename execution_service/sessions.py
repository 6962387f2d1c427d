"""The session of this replica: its heartbeats, and which of them a manager has echoed. Pure; times are arguments."""

import random
from collections import OrderedDict

# A start, and an assignment, rest on a heartbeat that was sent less than this long ago by the boot-time clock.
# A manager may end a session only after 3 s at least, so nothing starts in a session that could be ended.
FRESH_SECONDS = 2.5
# More than a heartbeat a second needs for FRESH_SECONDS, with room for the extra ones that new streams cause.
HEARTBEATS_REMEMBERED = 16


def new_session_id() -> int:
    """A positive 63-bit number that no other session has."""
    return random.getrandbits(62) + 1


class Session:
    """One session; a replica opens a new one when it starts and after the last one was ended."""

    def __init__(self, session_id: int, *, now: float) -> None:
        self.session_id = session_id
        self.ended = False
        # Number of the newest heartbeat; 0 stands for the session's begin, which its Hello announces.
        self.number = 0
        self._sent: OrderedDict[int, float] = OrderedDict({0: now})
        self._echoed = 0

    def beat(self, now: float) -> int:
        """Number the next heartbeat and remember when it was sent."""
        self.number += 1
        self._sent[self.number] = now
        while len(self._sent) > HEARTBEATS_REMEMBERED:
            self._sent.popitem(last=False)
        return self.number

    def echo(self, session_id: int, number: int) -> float | None:
        """Take an echo; return the send time of its heartbeat if it is newer than all echoed before, and recent."""
        if session_id != self.session_id or self.ended or not self._echoed < number <= self.number:
            return None
        self._echoed = number
        return self._sent.get(number)

    @property
    def echoed(self) -> int:
        """Number of the newest heartbeat that a manager has echoed."""
        return self._echoed

    def knows(self, session_id: int, number: int) -> bool:
        """Whether `number` is a heartbeat of this session, and thus its echo a sign of life of the manager."""
        return session_id == self.session_id and not self.ended and 0 < number <= self.number

    def takes(self, session_id: int, heard: int, now: float) -> bool:
        """Whether an assignment may be taken whose claim began when `heard` was the newest heartbeat known."""
        if session_id != self.session_id or self.ended:
            return False
        sent_at = self._sent.get(heard)
        return sent_at is not None and now - sent_at <= FRESH_SECONDS
