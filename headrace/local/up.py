"""Runs a whole cluster in the foreground: what `headrace up` does."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from headrace.local.cluster_file import ClusterFile, ProcessEntry
from headrace.local.consul import RegistryServer
from headrace.local.errors import LocalClusterError
from headrace.local.http_probe import answers_ok, fetch
from headrace.local.lock import DataDirLock
from headrace.local.postgres import PostgresServer
from headrace.local.process import LOOPBACK, Command, accepts_connections, free_port, port_of
from headrace.local.redis import RedisServer
from headrace.local.services import ServiceFactory, ServiceOptions, Stores
from headrace.local.supervisor import Ended, Program, SupervisedProcess, Supervisor

TASKS_DATABASE = "headrace_tasks"
RESULTS_DATABASE = "headrace_results"
# In seconds from the request to stop. Together they keep the promise that everything has ended after 15.
STOP_ORDER = (
    ("gateway", 2.5),
    ("execution", 11.5),
    ("management", 13.0),
    ("registry", 13.5),
    ("redis", 14.2),
    ("postgres", 14.8),
)
SERVER_START_SECONDS = 60.0
SERVICE_START_SECONDS = 90.0
# A program that ended this often in a row before the cluster was up will not come up by itself.
RESTARTS_BEFORE_GIVING_UP = 5
LOG_TAIL_LINES = 10
LOG_LINE_LENGTH_MAX = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    """What a person can choose. A server with an address is used and not started; port 0 is a free port."""

    data_dir: Path = Path(".headrace")
    port: int = 8080
    managers: int = 2
    executors: int = 2
    workers: int = 2
    postgres_dsn: str | None = None
    results_dsn: str | None = None
    redis_url: str | None = None
    consul_url: str | None = None
    role_env: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


class _Server(Protocol):
    @property
    def address(self) -> str: ...
    def prepare(self) -> None: ...
    def command(self) -> Command: ...
    def ready(self) -> bool: ...
    def close(self) -> None: ...


def run_cluster(options: ClusterOptions, say: Callable[[str], None]) -> None:
    """Run a cluster until SIGINT, SIGTERM or SIGHUP, and stop all of it. `say` shows a line to the person.

    Raises LocalClusterError, with nothing left running, if the cluster cannot be started.
    """
    data_dir = options.data_dir.resolve()
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    (data_dir / "logs").mkdir(mode=0o700, exist_ok=True)
    lock = DataDirLock(data_dir)
    lock.acquire()
    try:
        port = _check_port(options.port)
        asyncio.run(_Cluster(replace(options, data_dir=data_dir, port=port), lock, say).run())
    finally:
        lock.release()


def _check_port(port: int) -> int:
    if port == 0:
        return free_port()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise LocalClusterError(
                f"Port {port} cannot be used ({error.strerror}). "
                "Stop what listens there, or choose another with --port."
            ) from error
    return port


class _Cluster:
    def __init__(self, options: ClusterOptions, lock: DataDirLock, say: Callable[[str], None]) -> None:
        self._options = options
        self._lock = lock
        self._say = say
        self._servers: dict[str, _Server] = {}
        self._stores: Stores | None = None
        self._supervisor = Supervisor(on_change=self._write_file, on_end=self._tell_end)

    async def run(self) -> None:
        stop = asyncio.Event()
        for signal_number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(signal_number, stop.set)
        starting = asyncio.create_task(self._start())
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await starting
            await stopping
        finally:
            stopping.cancel()
            self._say("Stopping ...")
            await self._supervisor.stop(STOP_ORDER)
            for server in self._servers.values():
                server.close()
            self._say("Stopped.")

    async def _start(self) -> None:
        self._say("Starting ...")
        stores = await self._start_servers()
        self._stores = stores
        options = self._options
        factory = ServiceFactory(
            options.data_dir,
            stores=stores,
            options=ServiceOptions(
                port=options.port,
                managers=options.managers,
                executors=options.executors,
                workers=options.workers,
                role_env=options.role_env,
            ),
            inherited_descriptor=self._lock.inherited_descriptor,
        )
        await self._supervisor.start(*factory.programs())
        await self._wait_for_gateway()
        self._say(_welcome(options))

    async def _start_servers(self) -> Stores:
        """Start what was not given an address, all at the same time, and return when each of them answers."""
        options = self._options
        postgres_dsn, results_dsn = options.postgres_dsn, options.results_dsn
        redis_url, consul_url = options.redis_url, options.consul_url
        # The slowest to come up is the first to be started.
        if consul_url is None:
            registry = RegistryServer(options.data_dir / "registry", consul=shutil.which("consul"))
            await self._start_server("registry", registry)
            consul_url = registry.url
        if postgres_dsn is None or results_dsn is None:
            postgres = PostgresServer(options.data_dir / "postgres")
            postgres.prepare(databases=(TASKS_DATABASE, RESULTS_DATABASE))
            await self._start_server("postgres", postgres)
            postgres_dsn = postgres_dsn or postgres.dsn(TASKS_DATABASE)
            results_dsn = results_dsn or postgres.dsn(RESULTS_DATABASE)
        if redis_url is None:
            redis = RedisServer(options.data_dir / "redis")
            await self._start_server("redis", redis)
            redis_url = redis.url
        for role, server in self._servers.items():
            if not await self._becomes(server.ready, seconds=SERVER_START_SECONDS):
                message = f"{role} does not answer after {SERVER_START_SECONDS:.0f} s."
                raise LocalClusterError(message + _tail(self._log_of(f"{role}-0")))
        return Stores(postgres_dsn=postgres_dsn, results_dsn=results_dsn, redis_url=redis_url, consul_url=consul_url)

    async def _start_server(self, role: str, server: _Server) -> None:
        self._servers[role] = server
        command = server.command()
        kept_descriptors = (*command.kept_descriptors, self._lock.inherited_descriptor)
        program = Program(
            role=role,
            program_id=f"{role}-0",
            command=replace(command, kept_descriptors=kept_descriptors),
            address=server.address,
            log=self._log_of(f"{role}-0"),
            prepare=server.prepare,
        )
        await self._supervisor.start(program)

    def _log_of(self, program_id: str) -> Path:
        return self._options.data_dir / "logs" / f"{program_id}.log"

    async def _wait_for_gateway(self) -> None:
        port = self._options.port
        # The gateway alone may be ready by what a cluster before this one left in the database.
        ports = [port_of(process.program.address) for process in self._supervisor.processes]

        def ready() -> bool:
            return all(map(accepts_connections, ports)) and answers_ok(port, "/readyz")

        if not await self._becomes(ready, seconds=SERVICE_START_SECONDS):
            answer = fetch(port, "/readyz")
            says = "does not answer" if answer is None else f"says {answer[1].decode(errors='replace')}"
            raise LocalClusterError(
                f"The gateway is not ready after {SERVICE_START_SECONDS:.0f} s; its /readyz {says}. "
                f"The logs are in {self._options.data_dir / 'logs'}."
            )

    async def _becomes(self, ready: Callable[[], bool], *, seconds: float) -> bool:
        """Wait for `ready` and tell whether it came true. Raises LocalClusterError if a program keeps ending."""
        deadline = time.monotonic() + seconds
        while not ready():
            for process in self._supervisor.processes:
                if process.exit_code == os.EX_CONFIG or process.restarts >= RESTARTS_BEFORE_GIVING_UP:
                    raise LocalClusterError(f"{process.program.program_id} does not start.{_why(process.program.log)}")
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.05)
        return True

    def _write_file(self) -> None:
        if self._stores is None:
            return
        processes = [_entry(process) for process in self._supervisor.processes if process.pid]
        content = ClusterFile(
            processes=processes,
            postgres_dsn=self._stores.postgres_dsn,
            results_dsn=self._stores.results_dsn,
            redis_url=self._stores.redis_url,
            consul_url=self._stores.consul_url,
        )
        try:
            content.write(self._options.data_dir)
        except OSError as error:  # a full disk must not end the supervision
            self._say(f"cluster.json cannot be written: {error}")

    def _tell_end(self, ended: Ended) -> None:
        after = f" in {ended.wait:g} s" if ended.wait else ""
        clock = time.strftime("%H:%M:%S")
        self._say(f"{clock} {ended.program.program_id} {ended.reason}, restarting{after} (log: {ended.program.log})")


def _welcome(options: ClusterOptions) -> str:
    url = f"http://{LOOPBACK}:{options.port}"
    return (
        "Headrace is running.\n"
        f"  API   {url}/api\n"
        f"  Docs  {url}/docs\n"
        f"  Logs  {options.data_dir / 'logs'}\n"
        "Ctrl-C stops everything; the tasks stay in the data directory."
    )


def _entry(process: SupervisedProcess) -> ProcessEntry:
    program = process.program
    return ProcessEntry(
        role=program.role,
        id=program.program_id,
        pid=process.pid,
        address=program.address,
        http_address=program.http_address,
        log=str(program.log),
    )


def _why(log: Path) -> str:
    """Return what a service said when it failed, or the end of its log if it did not say."""
    for line in reversed(log.read_bytes().splitlines()):
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict) and entry.get("event") == "service_failed":
                return f" {entry['reason']}\nIts log is {log}."
    return _tail(log)


def _tail(log: Path) -> str:
    try:
        lines = log.read_bytes().decode(errors="replace").splitlines()[-LOG_TAIL_LINES:]
    except FileNotFoundError:
        return ""
    return "\n".join((f" The end of {log}:", *(line[:LOG_LINE_LENGTH_MAX] for line in lines)))
