"""Blocks of task ids that nobody was given before, as far as either store remembers."""

import structlog
from redis.asyncio import Redis

from management_service.storage.id_blocks import IdBlockRepository, block_bounds
from servicekit.loops import BackgroundLoop
from servicekit.redis_errors import REDIS_ERRORS
from servicekit.redis_keys import IDS_HIGH, IDS_HIGH_MEMBER

log = structlog.stdlib.get_logger(__name__)


class IdBlocks:
    """PostgreSQL hands out, Redis remembers: neither a restored database nor an emptied Redis repeats an id."""

    def __init__(self, blocks: IdBlockRepository, redis: Redis) -> None:
        self._blocks = blocks
        self._redis = redis
        self._loop = BackgroundLoop("id_blocks", self._remember, interval=1.0)

    def start(self) -> None:
        self._loop.start()

    async def stop(self) -> None:
        await self._loop.stop()

    async def reserve(self) -> tuple[int, int]:
        """Return first and last id of a new block. Raises Unavailable when the database does not answer."""
        block = await self._blocks.reserve(redis_high=await self._known_to_redis())
        await self._tell_redis(block)
        first, last = block_bounds(block)
        log.info("ids_reserved", first_id=first, last_id=last)
        return first, last

    async def _remember(self) -> None:
        await self._tell_redis(await self._blocks.high())

    async def _known_to_redis(self) -> int:
        try:
            return int(await self._redis.zscore(IDS_HIGH, IDS_HIGH_MEMBER) or 0)
        except REDIS_ERRORS as error:
            log.warning("ids_reserved_without_redis", reason=str(error))
            return 0

    async def _tell_redis(self, block: int) -> None:
        try:
            await self._redis.zadd(IDS_HIGH, {IDS_HIGH_MEMBER: block}, gt=True)
        except REDIS_ERRORS:
            log.debug("ids_not_told_to_redis")
