"""How many tasks wait in each pool, for the replicas that size their pools by it."""

from collections.abc import Mapping

from management_service.dispatch import Dispatcher
from management_service.links import ExecutorLink
from management_service.storage.tasks import TaskRepository
from servicekit.loops import BackgroundLoop

WAITING_SECONDS = 0.5


class WaitingCounts:
    """Tells every replica how many ready tasks of its types wait, as far as they are counted.

    A pool in which nothing waits, as the last claim has found, costs no statement.
    """

    def __init__(self, tasks: TaskRepository, links: Mapping[str, ExecutorLink], dispatcher: Dispatcher) -> None:
        self._tasks = tasks
        self._links = links
        self._dispatcher = dispatcher
        self._loop = BackgroundLoop("waiting_counts", self.run_once, interval=WAITING_SECONDS)

    def start(self) -> None:
        self._loop.start()

    async def stop(self) -> None:
        await self._loop.stop()

    async def run_once(self) -> None:
        pools = {pool for link in self._links.values() for pool in link.accounts}
        asked = {pool for pool in pools if not self._dispatcher.nothing_waits(pool)}
        counts = await self._tasks.count_waiting(asked) if asked else {}
        for link in self._links.values():
            link.tell_waiting(
                {
                    pool: sum(count for (of, name), count in counts.items() if of == pool and name in account.types)
                    for pool, account in link.accounts.items()
                }
            )
