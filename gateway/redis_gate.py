"""The gateway's way to Redis, with a breaker: after a failure Redis is left alone until a probe is answered."""

from dataclasses import dataclass

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from servicekit import redis_keys
from servicekit.loops import BackgroundLoop
from servicekit.redis_errors import REDIS_ERRORS

log = structlog.stdlib.get_logger(__name__)

SOCKET_SECONDS = 1.5
PROBE_SECONDS = 0.5
# Every so many probes the settings and the memory are looked at.
_INSPECT_EVERY = 10
_CONNECTIONS_MAX = 32


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """What Redis says of itself."""

    # Every write is on the disk before it is answered, and nothing is evicted.
    durable: bool = False
    # Used less than half of the memory that it may use.
    roomy: bool = False


class RedisGate:
    def __init__(self, url: str) -> None:
        self.available = False
        self.facts = RedisFacts()
        # No retries: a write repeated behind our back is stored twice, and a dead server must not hold its callers.
        self._pool = BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS_MAX,
            timeout=SOCKET_SECONDS,
            socket_timeout=SOCKET_SECONDS,
            socket_connect_timeout=1.0,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
        self.client: Redis = Redis(connection_pool=self._pool)
        self._runs = 0
        self._loss_reported = False
        self._loop = BackgroundLoop("redis_gate", self.run_once, interval=PROBE_SECONDS)

    async def start(self) -> None:
        """Probe once, then keep probing; returns also when Redis is away."""
        await self.run_once()
        self._loop.start()

    def problem(self, *, within: float) -> str | None:
        """A check for readiness: None while the probe makes progress, whatever it finds."""
        return self._loop.problem(within=within)

    async def stop(self) -> None:
        await self._loop.stop()
        await self.client.aclose()
        await self._pool.disconnect()

    def trip(self, error: BaseException) -> None:
        """Leave Redis alone until the next answered probe."""
        if not self._loss_reported:
            log.warning("redis_unavailable", reason=f"{type(error).__name__}: {error}"[:300])
        self._loss_reported = True
        self.available = False

    async def run_once(self) -> None:
        """Probe if the way is closed, or look at the settings now and then."""
        self._runs += 1
        if self.available and self._runs % _INSPECT_EVERY:
            return
        try:
            await self._inspect()
        except REDIS_ERRORS as error:
            self.trip(error)
            return
        if not self.available:
            log.info("redis_available", durable=self.facts.durable)
        self._loss_reported = False
        self.available = True

    async def _inspect(self) -> None:
        # A write that changes nothing: a server that is read only, full or cannot save refuses it, and answers PING.
        await self.client.hincrby(redis_keys.BACKLOG, redis_keys.BACKLOG_TASKS, 0)
        settings, memory = await self._settings(), await self.client.info("memory")
        ceiling = int(settings.get("maxmemory") or 0)
        durable = (
            settings.get("appendonly") == "yes"
            and settings.get("appendfsync") == "always"
            and settings.get("maxmemory-policy", "noeviction") == "noeviction"
        )
        if not durable and (self.facts.durable or not self.available):
            log.warning("redis_not_durable", **{name.replace("-", "_"): value for name, value in settings.items()})
        self.facts = RedisFacts(durable=durable, roomy=not ceiling or memory["used_memory"] < ceiling / 2)

    async def _settings(self) -> dict[str, str]:
        """The settings that promises hang on; none where the server does not tell them."""
        try:
            settings = await self.client.config_get("append*", "maxmemory*")
        except RedisError as error:
            log.debug("redis_settings_hidden", reason=str(error)[:200])
            return {}
        return {
            str(name): str(value)
            for name, value in settings.items()
            if name in ("appendonly", "appendfsync", "maxmemory", "maxmemory-policy")
        }
