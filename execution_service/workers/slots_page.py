"""The page that a worker and the pool share to know exactly what the worker has started.

A worker can die at any instruction. What it wrote here before it did is still readable, so the pool need not guess
which of the attempts that it handed in were started, which of them were running, and when each is to be killed.
Every word has one writer, and words are written whole.
"""

import mmap
import os

# An `async def` handler is ended by its own event loop; the pool kills the worker only where that does not work.
ASYNC_KILL_GRACE_SECONDS = 1.5

_HEADER_WORDS = 8
_SLOT_WORDS = 4
_WORD_BYTES = 8
# Words of the header.
_STARTED = 0
_CONTROL = 1
_UNMARKED = 2
# Words of a slot.
_SEQ = 0
_KILL_AT = 1
_CANCEL = 2
_BEGAN_AT = 3


class SlotsPage:
    """Per worker: the number of the last attempt started, and per slot the attempt that runs in it, 0 for none."""

    def __init__(self, fd: int, slots: int) -> None:
        """Map the page behind `fd`, which the page owns from now on."""
        self.fd = fd
        self._slots = range(slots)
        self._map = mmap.mmap(fd, _page_bytes(slots))
        self._words = memoryview(self._map).cast("q")
        self._times = memoryview(self._map).cast("d")

    @classmethod
    def create(cls, slots: int) -> "SlotsPage":
        """Return a new page on which nothing has been started."""
        fd = os.memfd_create("headrace-slots", os.MFD_CLOEXEC)
        os.ftruncate(fd, _page_bytes(slots))
        return cls(fd, slots)

    def begin(self, slot: int, seq: int, kill_at: float, began_at: float) -> None:
        """Worker: attempt `seq` starts in `slot`; the pool is to kill the worker if it still runs at `kill_at`.

        `began_at` is in unix seconds, for display.
        """
        base = _HEADER_WORDS + slot * _SLOT_WORDS
        self._times[base + _BEGAN_AT] = began_at
        self._times[base + _KILL_AT] = kill_at
        self._words[base + _SEQ] = seq
        self._words[_STARTED] = seq

    def end(self, slot: int) -> None:
        """Worker: the attempt in `slot` has ended."""
        self._words[_HEADER_WORDS + slot * _SLOT_WORDS + _SEQ] = 0

    def cancel_asked(self, slot: int, seq: int) -> bool:
        """Worker: whether attempt `seq`, which runs in `slot`, is to stop."""
        return self._words[_HEADER_WORDS + slot * _SLOT_WORDS + _CANCEL] == seq

    @property
    def generation(self) -> int:
        """Worker: the number of the newest control frame that the pool has sent."""
        return self._words[_CONTROL]

    @generation.setter
    def generation(self, number: int) -> None:
        self._words[_CONTROL] = number

    @property
    def unmarked(self) -> bool:
        """Whether the pool has read output, or is about to, that no mark has followed yet."""
        return self._words[_UNMARKED] != 0

    @unmarked.setter
    def unmarked(self, value: bool) -> None:
        self._words[_UNMARKED] = value

    @property
    def last_started(self) -> int:
        """Pool: the number of the last attempt started. Attempts are started in the order of their numbers."""
        return self._words[_STARTED]

    def running(self) -> dict[int, float]:
        """Pool: the attempts that run now, with the times at which they are to be killed."""
        running = {}
        for slot in self._slots:
            base = _HEADER_WORDS + slot * _SLOT_WORDS
            if seq := self._words[base + _SEQ]:
                running[seq] = self._times[base + _KILL_AT]
        return running

    def began(self) -> dict[int, float]:
        """Pool: the attempts that run now, with the times at which they were started."""
        began = {}
        for slot in self._slots:
            base = _HEADER_WORDS + slot * _SLOT_WORDS
            if seq := self._words[base + _SEQ]:
                began[seq] = self._times[base + _BEGAN_AT]
        return began

    def began_at(self, seq: int) -> float | None:
        """Pool: when attempt `seq` was started, as far as the page still tells."""
        for slot in self._slots:
            base = _HEADER_WORDS + slot * _SLOT_WORDS
            # With one slot the last attempt started is the one that the slot tells of, also when it has ended.
            if self._words[base + _SEQ] == seq or (len(self._slots) == 1 and self.last_started == seq):
                return self._times[base + _BEGAN_AT]
        return None

    def ask_cancel(self, seq: int) -> None:
        """Pool: let attempt `seq` see that it is to stop, if it runs."""
        for slot in self._slots:
            base = _HEADER_WORDS + slot * _SLOT_WORDS
            if self._words[base + _SEQ] == seq:
                self._words[base + _CANCEL] = seq

    def close(self) -> None:
        """Unmap the page and close its descriptor."""
        self._words.release()
        self._times.release()
        self._map.close()
        os.close(self.fd)


def _page_bytes(slots: int) -> int:
    return (_HEADER_WORDS + slots * _SLOT_WORDS) * _WORD_BYTES
