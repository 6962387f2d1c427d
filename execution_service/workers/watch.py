"""What the pool's scan does for one worker: timeouts, stops that are not followed, attempts stuck behind another."""

from itertools import islice

from execution_service.workers.held import Fate, Held
from execution_service.workers.lease_page import LeasePage, boottime
from execution_service.workers.process import WorkerProcess

SCAN_SECONDS = 0.05
# What was told to stop gets so long until SIGTERM, and until SIGKILL, so that it is over within 2 s.
TERMINATE_SECONDS = 0.5
KILL_SECONDS = 1.5
# A worker that may start what it holds and does not is killed after this.
STALL_SECONDS_MAX = 5.0
# Attempts behind one that runs for this long are taken back.
STUCK_SCANS = 3


def watch_worker(worker: WorkerProcess, lease: LeasePage, now: float) -> list[Held]:
    """Look after one worker that holds attempts.

    Return the attempts that it certainly will not start: it was told so, and runs an older one since before that.
    """
    running = worker.page.running()
    _watch_running(worker, running, now)
    _watch_stall(worker, running, lease, now)
    if worker.slots > 1:
        worker.seen = {seq: worker.seen.get(seq, 0) + 1 for seq in running}
        return []
    return [] if worker.killed else _watch_behind(worker, running)


def is_stuck(worker: WorkerProcess) -> bool:
    """Return whether the worker has been in one attempt for longer than prefetched ones should wait."""
    return worker.slots == 1 and worker.seen_scans >= STUCK_SCANS


def long_running(worker: WorkerProcess) -> list[Held]:
    """Return the attempts that the last scans have all found running."""
    entries = worker.entries
    if worker.slots == 1:
        return list(islice(entries.values(), 1)) if is_stuck(worker) else []
    return [entries[seq] for seq, scans in worker.seen.items() if scans > STUCK_SCANS and seq in entries]


def _watch_running(worker: WorkerProcess, running: dict[int, float], now: float) -> None:
    for seq, kill_at in running.items():
        held = worker.entries.get(seq)
        if held is None:
            continue
        if held.fate in (Fate.CANCEL, Fate.ABANDON):
            _press(worker, held, now)
        elif held.fate is Fate.OPEN and now >= kill_at:
            held.fate = Fate.TIMEOUT
            worker.kill()


def _press(worker: WorkerProcess, held: Held, now: float) -> None:
    """Make an attempt stop: tell it, send it SIGTERM, kill its worker. No SIGTERM where neighbours would get it too."""
    waited = now - held.stop_at
    worker.page.ask_cancel(held.seq)
    if waited >= KILL_SECONDS:
        if not worker.killed:
            worker.kill()
    elif waited >= TERMINATE_SECONDS and worker.slots == 1 and not held.terminated:
        held.terminated = True
        worker.terminate()


def _watch_stall(worker: WorkerProcess, running: dict[int, float], lease: LeasePage, now: float) -> None:
    oldest = next(iter(worker.entries.values()))
    if running or not lease.may_start(oldest.attempt.session_id, boottime()):
        worker.stalled_since = None
    elif worker.stalled_since is None or worker.stalled_seq != oldest.seq:
        worker.stalled_since, worker.stalled_seq = now, oldest.seq
    elif now - worker.stalled_since > STALL_SECONDS_MAX:
        worker.condemn(f"The worker held attempts for {STALL_SECONDS_MAX:g} s and did not start them.")


def _watch_behind(worker: WorkerProcess, running: dict[int, float]) -> list[Held]:
    current = next(iter(running), None)
    if current is None or current != worker.seen_running:
        worker.seen_running, worker.seen_scans = current, 0
        return []
    worker.seen_scans += 1
    behind = [held for seq, held in worker.entries.items() if seq > current]
    if behind and worker.seen_scans >= STUCK_SCANS:
        untold = [held for held in behind if not held.told]
        if untold:
            worker.control(cancel=[held.seq for held in untold])
            for held in untold:
                held.told = True
            # Only the next scan that still finds `current` running is proof.
            return []
        return behind
    return []
