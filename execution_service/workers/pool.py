"""The pool of worker processes: takes attempts, gives back how each of them ended.

Everything happens on one event loop and nothing waits: no task, future or timer is made per attempt. A scan every
50 ms looks after timeouts, cancels and stalled workers; all else follows from what the workers send and from their
ends. `on_finished` and `on_progress` are called from the loop, with everything that has come in meanwhile.
"""

import asyncio
import os
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
import structlog

from execution_service.workers.attempt_logs import AttemptLogs, rendered
from execution_service.workers.autopsy import Death, Next, Stage, judge, stage_of
from execution_service.workers.delivery import Delivery
from execution_service.workers.durations import Durations
from execution_service.workers.endings import ending_after_death, unstarted, with_time
from execution_service.workers.environment import worker_environment
from execution_service.workers.frames import FrameToPool, Leaving, LogReport, Outcomes, ProgressReport, Worn
from execution_service.workers.guard import Guard
from execution_service.workers.handler_log import HandlerLog
from execution_service.workers.held import Fate, Held
from execution_service.workers.lane import Lane
from execution_service.workers.lease_page import LeasePage
from execution_service.workers.listing import describe_worker
from execution_service.workers.outcomes import (
    Attempt,
    AttemptError,
    Finished,
    LaneLoad,
    Outcome,
    PoolSize,
    ProgressItem,
    WorkerInfo,
)
from execution_service.workers.process import Launch, WorkerProcess
from execution_service.workers.scratch import PoolScratch
from execution_service.workers.watch import SCAN_SECONDS, watch_worker
from execution_service.workers.wear import NO_LIMITS, WearLimits, resident_bytes
from headrace.tasks import TaskModuleError
from servicekit.errors import FieldError, InvalidArgument, NotFound, Overloaded, Unavailable

AttemptKey = tuple[int, int]

_START_SECONDS_MAX = 15.0
_KILL_SECONDS_MAX = 5.0
_CROWDED_OUT = AttemptError("handed_back", "It would have waited here for too long; it goes where there is room.")

log = structlog.get_logger(__name__)


class WorkerPool:
    """Runs attempts in worker processes, by kind of capacity.

    Every attempt that was submitted gets one `Finished`, except those that were abandoned or whose session was killed.
    """

    def __init__(
        self,
        *,
        name: str,
        registry_modules: Sequence[str],
        pools: Mapping[str, PoolSize],
        lease_page: LeasePage,
        scratch_dir: Path,
        on_finished: Callable[[list[Finished]], None],
        on_progress: Callable[[list[ProgressItem]], None],
        environment: Mapping[str, str] | None = None,
        wear: WearLimits = NO_LIMITS,
    ) -> None:
        """`name` begins the ids of the workers; `scratch_dir` may be shared with other pools.

        `environment` is that of the workers; without it, the part of our own that handlers may see. `wear` says when
        workers are replaced.
        """
        self._name = name
        self._modules = tuple(registry_modules)
        self._lease = lease_page
        self._scratch_dir = scratch_dir
        self._environment = worker_environment() if environment is None else environment
        self._wear = wear
        self._logs = AttemptLogs()
        self._delivery = Delivery(on_finished=on_finished, on_progress=on_progress)
        self._durations = Durations()
        self._lanes = {pool: Lane(pool, size, self._durations, self._start_worker) for pool, size in pools.items()}
        self._held: dict[AttemptKey, Held] = {}
        self._handler_log = HandlerLog()
        # Part of the worker ids, so that a restarted replica does not use one again.
        self._generation = secrets.token_hex(2)
        self._workers_started = 0
        self._draining = False
        self._stopped = False
        self._changed = asyncio.Event()
        # What the first workers said that could not load the task modules.
        self._unloadable: str | None = None
        self._cleanups: set[asyncio.Task[None]] = set()
        self._scan_handle: asyncio.TimerHandle | None = None
        self._scanned_at = 0.0

    async def start(self) -> None:
        """Start the workers; return when they are ready, or after 15 s, since they may also become so later.

        Raises TaskModuleError if one of them cannot load the task modules.
        """
        self._scratch = await asyncio.to_thread(PoolScratch, self._scratch_dir)
        self._guard = Guard()
        self._launch = Launch(self._modules, self._lease.fd, self._wear.memory, self._scratch.path, self._environment)
        self._scan()
        ready = await self._wait_for(self._has_started, _START_SECONDS_MAX)
        if self._unloadable is not None:
            await self.stop()
            raise TaskModuleError(f"in a worker, {self._unloadable}")
        if not ready:
            log.warning("workers_not_ready", waited_seconds=_START_SECONDS_MAX)

    def _has_started(self) -> bool:
        return self._unloadable is not None or all(worker.ready for worker in self._all_workers())

    async def stop(self) -> None:
        """Kill all workers. Attempts that are still held get no outcome; `drain` first to give them one."""
        if self._stopped:
            return
        self._stopped = self._draining = True
        for worker in self._all_workers():
            worker.kill()
        await self._wait_for(lambda: not self._all_workers(), _KILL_SECONDS_MAX)
        if self._scan_handle is not None:
            self._scan_handle.cancel()
        self._held.clear()
        self._delivery.flush()
        await asyncio.gather(*self._cleanups)
        await self._guard.stop()
        await asyncio.to_thread(self._scratch.close)

    def slots(self, pool: str) -> int:
        """Return how many attempts of the pool run at once now."""
        lane = self._lanes.get(pool)
        return lane.slots if lane is not None else 0

    def problem(self, *, within: float) -> str | None:
        """A check for readiness: None while workers are looked after, and each pool has one that is ready."""
        silent = time.monotonic() - self._scanned_at
        if silent > within:
            return f"workers have not been looked after for {silent:.1f} s"
        idle = [lane.name for lane in self._lanes.values() if not any(worker.ready for worker in lane.workers)]
        return f"no worker is ready in {', '.join(idle)}" if idle else None

    def mean_seconds(self, type_name: str) -> float | None:
        """Return how long handlers of the type took lately, None while none was measured."""
        return self._durations.mean(type_name)

    def is_short(self, type_name: str) -> bool:
        """Return whether attempts of the type were measured, and take so little time that others may wait for them."""
        return self._durations.is_short(type_name)

    def stuck(self, pool: str) -> int:
        """Return how many attempts of the pool run for long though their types are short."""
        lane = self._lanes.get(pool)
        return lane.stuck if lane is not None else 0

    def submit(self, attempts: Sequence[Attempt]) -> None:
        """Take attempts, to be started in about this order per pool: what is short may come before what is long.

        The caller bounds how many it hands in.
        """
        touched = set()
        now = time.monotonic()
        for attempt in attempts:
            held = Held(attempt, now)
            lane = self._lanes.get(attempt.pool)
            if self._draining or lane is None:
                self._delivery.finish((unstarted(held, Outcome.HANDED_BACK),))
            elif self._held.setdefault(held.key, held) is held:
                lane.add(held)
                touched.add(lane)
        for lane in touched:
            self._serve(lane)

    def cancel(self, task_id: int, attempt: int) -> None:
        """Stop an attempt because a cancel was asked for. Safe to repeat; unknown attempts are passed over."""
        held = self._held.get((task_id, attempt))
        if held is not None and held.fate is Fate.OPEN and not self._withdraw(held, Fate.CANCEL):
            self._delivery.finish((unstarted(held, Outcome.CANCELLED),))

    def abandon(self, keys: Iterable[AttemptKey]) -> None:
        """Stop attempts that do not own their tasks any more. Nothing is reported of them from now on."""
        for key in keys:
            held = self._held.get(key)
            if held is None:
                continue
            if held.fate is Fate.OPEN:
                self._withdraw(held, Fate.ABANDON)
            elif held.fate is not Fate.ABANDON:
                held.fate = Fate.ABANDON

    def kill_session(self, session_id: int) -> None:
        """Kill what runs of a session and drop what waits. Only what has finished before is still reported."""
        doomed = set()
        for held in [held for held in self._held.values() if held.attempt.session_id == session_id]:
            if held.worker is None:
                del self._held[held.key]
                self._lanes[held.attempt.pool].remove(held)
            else:
                held.fate = Fate.SESSION_ENDED
                doomed.add(held.worker)
        for worker in doomed:
            worker.kill()

    async def drain(self, grace: float) -> None:
        """Start nothing more; give back what waits, and after `grace` seconds also what still runs."""
        self._draining = True
        self._hand_back_waiting()
        for worker in self._all_workers():
            worker.control(release=True)
        if not await self._wait_for(self._hand_back_waiting, grace):
            for held in self._held.values():
                if held.fate is Fate.OPEN:
                    held.fate = Fate.HAND_BACK
                if held.worker is not None:
                    held.worker.kill()
            await self._wait_for(self._hand_back_waiting, _KILL_SECONDS_MAX)
        self._delivery.flush()

    def _hand_back_waiting(self) -> bool:
        """Give back what waits, also what workers have let go since; return whether nothing is held any more."""
        for lane in self._lanes.values():
            for held in lane.take_all():
                # A worker that is being killed still names the attempt it was reserved for.
                if self._held.pop(held.key, None) is not None:
                    self._delivery.finish((unstarted(held, Outcome.HANDED_BACK),))
        return not self._held

    def load(self, pool: str) -> LaneLoad:
        """Return how busy the pool was since the last call. Raises KeyError for an unknown pool."""
        return self._lanes[pool].load()

    def resize(self, pool: str, change: int) -> bool:
        """Add workers to the pool, or retire idle ones; return whether anything was changed."""
        lane = self._lanes[pool]
        if self._draining or not lane.resize(change):
            return False
        self._serve(lane)
        return True

    def hand_back_excess(self) -> None:
        """Hand back the attempts that would wait here for too long. Who submits more at a time leaves this out."""
        now = time.monotonic()
        for lane in self._lanes.values():
            excess = lane.take_excess(now)
            if excess:
                log.info("attempts_crowded_out", pool=lane.name, count=len(excess), first=excess[0].attempt.task_id)
                for held in excess:
                    del self._held[held.key]
                self._delivery.finish([unstarted(held, Outcome.HANDED_BACK, _CROWDED_OUT) for held in excess])

    def workers(self) -> list[WorkerInfo]:
        """Return the worker processes as they are now."""
        return [self._describe(worker) for worker in self._all_workers()]

    def add_worker(self, pool: str = "cpu") -> WorkerInfo:
        """Start one more worker process in the pool, and keep it at that size.

        Raises InvalidArgument for an unknown pool, Unavailable while draining, Overloaded at the bound.
        """
        lane = self._lanes.get(pool)
        if lane is None:
            message = f"There is no pool {pool[:100]!r} here, but {', '.join(self._lanes)}."
            raise InvalidArgument(message, code="unknown_pool", fields=[FieldError("/pool", "unknown_pool", message)])
        if self._draining:
            raise Unavailable("The replica is stopping.", code="draining")
        try:
            worker = lane.grow()
        except OSError as error:
            message = f"No process can be started: {error.strerror or error}."
            raise Overloaded(message, code="worker_not_started") from error
        return self._describe(worker)

    def remove_worker(self, worker_id: str, *, force: bool = False) -> WorkerInfo:
        """Take a worker out of service for good: when what it holds has ended, or at once. Safe to repeat.

        Killed with `force`, what it runs is handed back and what waits in it goes to another worker. Raises NotFound,
        and Conflict for the last worker of a pool.
        """
        for worker in self._all_workers():
            if worker.worker_id == worker_id:
                self._lanes[worker.pool].shrink(worker, force=force)
                return self._describe(worker)
        raise NotFound(f"There is no worker {worker_id[:100]!r} here.", code="worker_not_found")

    def _describe(self, worker: WorkerProcess) -> WorkerInfo:
        return describe_worker(worker, draining=self._draining)

    def _all_workers(self) -> list[WorkerProcess]:
        return [worker for lane in self._lanes.values() for worker in lane.workers]

    def _serve(self, lane: Lane) -> None:
        if not self._draining:
            lane.keep_size(time.monotonic())
            lane.pump()

    def _start_worker(self, lane: Lane) -> WorkerProcess:
        self._workers_started += 1
        worker = WorkerProcess(
            worker_id=f"{self._name}-{lane.name}-{self._generation}{self._workers_started}",
            pool=lane.name,
            slots=lane.slots_per_process,
            launch=self._launch,
            on_messages=self._on_messages,
            on_death=self._on_death,
        )
        self._guard.add(worker.pid)
        log.info("worker_started", worker=worker.worker_id, pid=worker.pid, pool=lane.name)
        return worker

    def _withdraw(self, held: Held, fate: Fate) -> bool:
        """Stop an attempt; return False if it was still waiting here, so that this was its end."""
        worker = held.worker
        if worker is None:
            del self._held[held.key]
            self._lanes[held.attempt.pool].remove(held)
            return False
        held.fate = fate
        held.stop_at = time.monotonic()
        held.told = True
        worker.control(cancel=[held.seq])
        worker.page.ask_cancel(held.seq)
        return True

    def _on_messages(self, worker: WorkerProcess, messages: list[FrameToPool]) -> None:
        for message in messages:
            if isinstance(message, Outcomes):
                self._take_outcomes(worker, message)
            elif isinstance(message, ProgressReport):
                self._take_progress(worker, message.items)
            elif isinstance(message, LogReport):
                self._take_log(worker, message)
            elif isinstance(message, Leaving):
                log.info("worker_leaves", worker=worker.worker_id, pid=worker.pid, reason=message.reason)
                worker.kill()
            elif isinstance(message, Worn):
                _wear_out(worker, message.reason)
            else:
                self._welcome(worker)
        lane = self._lanes[worker.pool]
        if not worker.entries and (worker.retiring or worker.reserved_for is not None):
            worker.kill()
        self._serve(lane)

    def _welcome(self, worker: WorkerProcess) -> None:
        """A worker is ready."""
        worker.ready = True
        self._lanes[worker.pool].serve_reserved(worker)
        self._changed.set()
        if 0 < self._wear.memory <= resident_bytes(worker.pid):
            # It would be replaced after each task, by one that is no smaller.
            log.warning("memory_limit_without_effect", worker=worker.worker_id, limit=self._wear.memory)

    def _take_outcomes(self, worker: WorkerProcess, message: Outcomes) -> None:
        all_held, entries, recalled = self._held, worker.entries, worker.recalled
        printed = set(message.printed)
        have_logs = bool(printed) or bool(self._logs)
        now = time.monotonic()
        reported: list[Finished] = []
        again: list[Held] = []
        for finished in message.finished:
            key = (finished.task_id, finished.attempt)
            if recalled and key in recalled:
                recalled.discard(key)
                continue
            held = all_held.get(key)
            if held is None or held.worker is not worker:
                worker.condemn(f"The worker reported the attempt {key}, which it was not given.")
                break
            del entries[held.seq]
            worker.load -= held.cost
            worker.load_bytes -= len(held.attempt.data)
            if held.fate is Fate.OPEN and held.told and _was_let_go(finished):
                again.append(held)
                continue
            del all_held[key]
            if have_logs:
                finished = self._with_log(finished, held, printed)  # noqa: PLW2901
            if finished.outcome is Outcome.CANCELLED:
                finished = with_time(finished, now - held.stop_at)  # noqa: PLW2901
            if held.fate is Fate.OPEN or _still_wanted(held.fate, finished):
                reported.append(finished)
        worker.tasks_done += len(reported)
        worker.seen_scans = 0
        if not entries:
            worker.load = 0.0
        if again:
            self._lanes[worker.pool].put_back(again)
            self._changed.set()
        self._durations.note(message.times)
        self._delivery.finish(reported)
        if not all_held:
            self._changed.set()

    def _with_log(self, finished: Finished, held: Held, printed: set[int]) -> Finished:
        if held.seq in printed and held.worker is not None:
            self._logs.add(held.key, held.worker.output.section(held.seq))
        text = self._logs.take(held.key)
        return msgspec.structs.replace(finished, log=text) if text else finished

    def _take_log(self, worker: WorkerProcess, report: LogReport) -> None:
        self._handler_log.write(worker.worker_id, report)
        for line in report.lines:
            held = self._held.get((line.task_id, line.attempt))
            if held is not None and held.worker is worker:
                self._logs.add(held.key, rendered(line))

    def _take_progress(self, worker: WorkerProcess, items: list[ProgressItem]) -> None:
        wanted = []
        for item in items:
            held = self._held.get((item.task_id, item.attempt))
            if held is not None and held.worker is worker and held.fate in (Fate.OPEN, Fate.CANCEL):
                wanted.append(item)
        if wanted:
            self._delivery.advance(wanted)

    def _on_death(self, worker: WorkerProcess, death: Death) -> None:
        lane = self._lanes[worker.pool]
        lane.note_death(worker, death, time.monotonic())
        self._guard.remove(worker.pid)
        self._settle(worker, death, lane)
        write = log.info if death.killed else log.warning
        write(
            "worker_ended",
            worker=worker.worker_id,
            pid=worker.pid,
            signal=death.signal,
            exit_code=death.exit_code,
            killed=death.killed,
            reason=death.reason,
        )
        if death.exit_code == os.EX_CONFIG and not worker.ready:
            self._unloadable = death.output
        if self._scratch.has(worker.worker_id):
            cleanup = asyncio.create_task(asyncio.to_thread(self._scratch.remove, worker.worker_id))
            self._cleanups.add(cleanup)
            cleanup.add_done_callback(self._cleanups.discard)
        self._changed.set()
        self._serve(lane)

    def _settle(self, worker: WorkerProcess, death: Death, lane: Lane) -> None:
        """Decide what becomes of each attempt that was in a worker which has ended."""
        last_started, running = worker.page.last_started, worker.page.running()
        again, reported = [], []
        now, ended_at = time.monotonic(), time.time()
        for seq, held in worker.entries.items():
            stage = stage_of(seq, last_started=last_started, running=running)
            verdict = judge(held.fate, stage, death, draining=self._draining)
            if verdict is Next.RUN_AGAIN:
                again.append(held)
                continue
            del self._held[held.key]
            if isinstance(verdict, Outcome):
                ending = ending_after_death(
                    held,
                    verdict,
                    death,
                    stage=stage,
                    started_at=worker.page.began_at(seq),
                    ended_at=ended_at,
                    stopped_after=now - held.stop_at,
                )
                if stage is Stage.RUNNING and worker.slots == 1:
                    self._logs.add(held.key, worker.output.rest())
                reported.append(msgspec.structs.replace(ending, log=self._logs.take(held.key)))
            else:
                self._logs.take(held.key)
        worker.entries.clear()
        lane.put_back(again)
        self._delivery.finish(reported)

    def _scan(self) -> None:
        try:
            now = time.monotonic()
            for lane in self._lanes.values():
                for worker in list(lane.workers):
                    worker.check(now)
                    if 0 < self._wear.tasks <= worker.tasks_done:
                        _wear_out(worker, f"it has run {worker.tasks_done} tasks")
                    if worker.entries:
                        self._take_back(worker, watch_worker(worker, self._lease, now), lane)
                self._serve(lane)
                lane.look()
            self._scanned_at = now
        except Exception:
            log.exception("scan_failed")
        self._scan_handle = asyncio.get_running_loop().call_later(SCAN_SECONDS, self._scan)

    def _take_back(self, worker: WorkerProcess, unstartable: list[Held], lane: Lane) -> None:
        again = []
        for held in unstartable:
            del worker.entries[held.seq]
            worker.load -= held.cost
            worker.load_bytes -= len(held.attempt.data)
            worker.recalled.add(held.key)
            if held.fate is Fate.OPEN:
                again.append(held)
                continue
            del self._held[held.key]
            if held.fate is Fate.CANCEL:
                self._delivery.finish((unstarted(held, Outcome.CANCELLED),))
        lane.put_back(again)

    async def _wait_for(self, condition: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not condition():
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), deadline - time.monotonic())
            except TimeoutError:
                return condition()
        return True


def _still_wanted(fate: Fate, finished: Finished) -> bool:
    """Return whether an outcome is reported of an attempt about which something was decided before it came."""
    if fate is Fate.ABANDON:
        return False
    return fate is not Fate.SESSION_ENDED or finished.outcome not in (Outcome.CANCELLED, Outcome.HANDED_BACK)


def _was_let_go(finished: Finished) -> bool:
    """Return whether the worker has not started the attempt because it was told so.

    Nobody wants it cancelled: the scan wanted it back from behind another, which has ended before the next scan.
    """
    return finished.outcome is Outcome.CANCELLED and not finished.started


def _wear_out(worker: WorkerProcess, reason: str) -> None:
    """Have a worker replaced by a successor, until which it goes on."""
    if not worker.worn:
        worker.worn = True
        log.info("worker_worn", worker=worker.worker_id, pid=worker.pid, reason=reason)
