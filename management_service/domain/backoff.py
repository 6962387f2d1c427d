"""How long a task waits before it is due again."""

import random
from datetime import timedelta

RETRY_INITIAL = timedelta(seconds=1)
RETRY_MAX = timedelta(minutes=5)
REFUSAL_INITIAL = timedelta(milliseconds=100)
REFUSAL_MAX = timedelta(seconds=5)


def retry_delay(failures: int, rng: random.Random) -> timedelta:
    """Exponential with full jitter: uniform between 0 and 1 s, 2 s, 4 s … at most 5 min, for `failures` >= 1.

    Full jitter as analysed by Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    ceiling = min(RETRY_MAX, RETRY_INITIAL * float(2 ** min(failures - 1, 20)))
    return ceiling * rng.random()


def refusal_delay(refusals: int) -> timedelta:
    """100 ms, doubling to 5 s, for `refusals` >= 1: refusals in a row mean that a replica cannot take the task now."""
    return min(REFUSAL_MAX, REFUSAL_INITIAL * float(2 ** min(refusals - 1, 10)))
