"""The servers that all other tests stand on."""

import psycopg
import redis.asyncio


async def test_each_test_gets_an_empty_database(postgres_dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(postgres_dsn) as connection:
        tables = await connection.execute("SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relnamespace = 2200")
        assert await tables.fetchone() == (0,)


async def test_each_test_gets_an_empty_redis(redis_url: str) -> None:
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        assert await client.dbsize() == 0
        await client.set("left", "behind")
