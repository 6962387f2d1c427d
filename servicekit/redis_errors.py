"""What a call to Redis may raise when Redis, or the way to it, is not well."""

from redis.exceptions import RedisError

# RuntimeError: uvloop raises it for a write to a connection that the server has just reset.
REDIS_ERRORS = (RedisError, OSError, TimeoutError, RuntimeError)
