"""What a call to Redis may raise when Redis, or the way to it, is not well."""

from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import RedisError

from servicekit.errors import Unavailable

# RuntimeError: uvloop raises it for a write to a connection that the server has just reset.
REDIS_ERRORS = (RedisError, OSError, TimeoutError, RuntimeError)


@contextmanager
def unavailable_without_redis() -> Iterator[None]:
    """Raises Unavailable in place of what a call to Redis raises: that Redis is away is expected to happen."""
    try:
        yield
    except REDIS_ERRORS as error:
        raise Unavailable(f"redis: {type(error).__name__}: {error}"[:300], code="redis_unavailable") from error
