"""Updates in the stream of Redis, as management adds them."""

from redis.asyncio import Redis

from headrace.v1.task_pb2 import TaskUpdate
from management_service.publishing import entries_of
from servicekit import redis_keys


async def publish_update(client: Redis, *updates: TaskUpdate) -> None:
    for _, entry in entries_of(updates):
        await publish_message(client, entry)


async def publish_message(client: Redis, message: bytes) -> None:
    """Add an entry with any content."""
    await client.xadd(redis_keys.UPDATES, {redis_keys.UPDATES_FIELD: message})
