"""A worker process: `python -m execution_service.workers.worker CONFIG`, started by the pool and by nothing else.

CONFIG is a JSON object (see WorkerConfig) that names inherited descriptors: the socket to the pool and the two shared
pages. The process leads a session of its own, so that the pool can kill it with everything its handlers started.
"""

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path
from typing import NoReturn

import msgspec

from execution_service.workers import prctl
from execution_service.workers.aftermath import open_stream
from execution_service.workers.frames import Ready
from execution_service.workers.interrupts import survive_sigterm
from execution_service.workers.lease_page import LeasePage
from execution_service.workers.limits import set_shared_sizes
from execution_service.workers.outbox import Outbox
from execution_service.workers.runner import Desk
from execution_service.workers.scratch import WorkerScratch
from execution_service.workers.sequential import run_sequential
from execution_service.workers.slots_page import SlotsPage
from execution_service.workers.wear import MemoryWatch
from headrace.tasks import TaskModuleError, TaskRegistry, load_registry


class WorkerConfig(msgspec.Struct, frozen=True):
    """What a worker is told when it starts."""

    worker_id: str
    secret: str
    parent_pid: int
    socket_fd: int
    lease_fd: int
    page_fd: int
    slots: int
    memory_max: int
    pool: str
    modules: list[str]
    scratch_dir: str


def main(argument: str) -> None:
    """Run the worker until its pool kills it or goes away."""
    config = msgspec.json.decode(argument, type=WorkerConfig)
    _confine(config.parent_pid)
    sys.stdout, sys.stderr = open_stream(1), open_stream(2)
    for fd in (config.socket_fd, config.lease_fd, config.page_fd):
        os.set_inheritable(fd, False)  # nothing that a handler starts may hold them
    registry = _load_task_types(config.modules)
    connection = socket.socket(fileno=config.socket_fd)
    outbox = Outbox(connection, on_gone=end_process_group)
    desk = Desk(
        worker_id=config.worker_id,
        secret=config.secret,
        registry=registry,
        connection=connection,
        outbox=outbox,
        lease=LeasePage(config.lease_fd),
        page=SlotsPage(config.page_fd, config.slots),
        scratch=WorkerScratch(Path(config.scratch_dir)),
        memory=MemoryWatch(config.memory_max),
    )
    outbox.start()
    outbox.send(Ready(os.getpid()))
    if config.slots == 1:
        run_sequential(desk, end_process_group)
    survive_sigterm()
    set_shared_sizes([each for each in registry.definitions if each.pool == config.pool], config.slots)
    _run_concurrent(desk, config.slots)


def end_process_group() -> NoReturn:
    """Kill this worker and every process that its handlers started."""
    os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _run_concurrent(desk: Desk, slots: int) -> None:
    import uvloop

    from execution_service.workers.concurrent import ConcurrentWorker

    async def run() -> None:
        await ConcurrentWorker(desk, slots, end_process_group).run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def _load_task_types(modules: list[str]) -> TaskRegistry:
    """Load them; what the replica could load, a worker may fail to, since it sees less of the environment."""
    try:
        return load_registry(modules)
    except TaskModuleError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(os.EX_CONFIG)


def _confine(parent_pid: int) -> None:
    """Tie the process to its parent, and give up what no handler needs."""
    prctl.die_with_parent()
    prctl.adopt_orphans()
    prctl.gain_no_privileges()
    if os.getppid() != parent_pid:
        end_process_group()  # the parent died before the signal was arranged


if __name__ == "__main__":
    main(sys.argv[1])
