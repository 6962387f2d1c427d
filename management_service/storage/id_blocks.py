"""Blocks of task ids."""

from management_service.storage.tasks import QUERIES
from servicekit.postgres import Database

BLOCK_SIZE = 1_000_000


class IdBlockRepository:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def reserve(self, *, redis_high: int) -> int:
        """Return the number of a block above every one handed out before, by this database or as Redis remembers."""
        [(block,)] = await self._database.fetch(QUERIES["reserve_id_block"], {"redis_high": redis_high})
        return int(block)

    async def high(self) -> int:
        """Return the number of the newest block handed out, 0 before the first."""
        [(high,)] = await self._database.fetch(QUERIES["read_id_high"])
        return int(high)


def block_bounds(block: int) -> tuple[int, int]:
    """First and last id of block number `block` (from 1)."""
    return (block - 1) * BLOCK_SIZE + 1, block * BLOCK_SIZE
