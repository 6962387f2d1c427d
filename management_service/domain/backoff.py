"""How long a task waits before it is due again."""

import random
from dataclasses import dataclass
from datetime import timedelta

RETRY_AFTER_MAX = timedelta(days=7)
REFUSAL_INITIAL = timedelta(milliseconds=100)
REFUSAL_MAX = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Backoff:
    """The delays after failures: uniform between 0 and `initial` × `factor`^(failures - 1), at most `maximum`.

    Full jitter as analysed by Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """

    initial: timedelta = timedelta(seconds=1)
    factor: float = 2.0
    maximum: timedelta = timedelta(minutes=5)

    def ceiling(self, failures: int) -> timedelta:
        """The longest delay after so many failures, for `failures` >= 1."""
        # A factor of 10 passes every maximum long before the power leaves the range of floats.
        return min(self.maximum, self.initial * min(self.factor ** min(failures - 1, 40), 1e9))

    def delay(self, failures: int, rng: random.Random) -> timedelta:
        return self.ceiling(failures) * rng.random()


DEFAULT_BACKOFF = Backoff()


def refusal_delay(refusals: int) -> timedelta:
    """100 ms, doubling to 5 s, for `refusals` >= 1: refusals in a row mean that a replica cannot take the task now."""
    return min(REFUSAL_MAX, REFUSAL_INITIAL * float(2 ** min(refusals - 1, 10)))
