"""Redis channels that wake this manager. What is said while nobody listens is found by looking, a little later."""

import asyncio
from collections.abc import Callable, Iterable

import structlog
from redis.asyncio import Redis

from servicekit.redis_keys import READY_CHANNEL, SUBMISSIONS_CHANNEL

log = structlog.stdlib.get_logger(__name__)

_PAUSE_SECONDS = 0.25
_PING_SECONDS = 1.0


class WakeUps:
    """Calls `on_submissions()` and `on_ready(pools)` as messages come, and once after each new subscription."""

    def __init__(
        self,
        redis: Redis,
        *,
        on_submissions: Callable[[], None],
        on_ready: Callable[[Iterable[str]], None],
    ) -> None:
        self._redis = redis
        self._on_submissions = on_submissions
        self._on_ready = on_ready

    async def run(self) -> None:
        """Listen until cancelled."""
        complained = False
        while True:
            try:
                await self._listen()
            except Exception as error:  # noqa: BLE001 - whatever it was, the channel is listened to again
                if not complained:
                    log.warning("wake_ups_lost", reason=str(error) or type(error).__name__)
                complained = True
            else:
                complained = False
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _listen(self) -> None:
        async with self._redis.pubsub() as channels:
            await channels.subscribe(SUBMISSIONS_CHANNEL, READY_CHANNEL)
            log.info("wake_ups_subscribed")
            self._on_submissions()
            answered = True
            while True:
                message = await channels.get_message(ignore_subscribe_messages=False, timeout=_PING_SECONDS)
                if message is None:
                    if not answered:
                        raise TimeoutError("no answer to a ping")
                    answered = False
                    await channels.ping()
                    continue
                answered = True
                self._take(message)

    def _take(self, message: dict[str, object]) -> None:
        if message["type"] != "message":
            return
        if message["channel"] == READY_CHANNEL.encode():
            data = message["data"]
            if isinstance(data, bytes):
                self._on_ready(data.decode(errors="replace").split(","))
        else:
            self._on_submissions()
