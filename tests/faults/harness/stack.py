"""A whole cluster of real processes under the control of a test.

Unlike `headrace up` it restarts nothing by itself. Processes are known by name: `postgres`, `results`, `redis`,
`consul`, `gateway-0`, `management-0`, `management-1`, `execution-0` … Every link goes through a proxy:
`stack.link("management-0", "postgres")` is that manager's way to the task database, and `stack.link_to("execution-0")`
the way of everybody to that replica (services listen at 127.0.0.1 and are registered at 127.0.0.2, where the proxy is).
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self
from urllib.parse import urlsplit

import grpc
import httpx
import psycopg
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headrace.local.consul import RegistryServer
from headrace.local.postgres import PostgresServer
from headrace.local.process import Command, accepts_connections, free_port, spawn_argv, spawn_options
from headrace.local.redis import RedisServer
from headrace.local.services import MODULES
from tests.faults.harness.proxy import Proxy, ProxyLoop
from tests.support.processes import has_ended
from tests.support.waiting import wait_until

START_SECONDS = 40.0
STOP_SECONDS = 30.0
_SERVERS = ("postgres", "results", "redis", "consul")
_USED_BY = {
    "gateway": ("redis", "consul"),
    "management": ("postgres", "redis", "consul"),
    "execution": ("results", "consul"),
}
TEST_MODULES = "tests.support.probe_tasks,tests.support.toxic_tasks"
# These are made of several processes, which freeze and thaw together.
_DATABASES = ("postgres", "results")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    gateways: int = 1
    managers: int = 2
    executors: int = 2
    workers: int = 2
    # Settings of all services, and of those of a role.
    env: Mapping[str, str] = field(default_factory=dict)
    role_env: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    # What one process has in its environment beside that, servers included, by name.
    own_env: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


class _Server(Protocol):
    port: int

    def command(self) -> Command: ...
    def ready(self) -> bool: ...
    def close(self) -> None: ...


class Managed:
    """One process of the cluster, started any number of times."""

    def __init__(self, name: str, command: Callable[[], Command], ready: Callable[[], bool], log: Path) -> None:
        self.name = name
        self.log = log
        self._command = command
        self._ready = ready
        self.process: subprocess.Popen[bytes] | None = None
        # All pids that this process ever had.
        self.pids: list[int] = []
        self._log_start = 0

    @property
    def pid(self) -> int:
        assert self.process is not None, f"{self.name} was not started"
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def spawn(self) -> None:
        """Start it without waiting. Call in the main thread: it dies with that thread."""
        assert not self.running, f"{self.name} runs already"
        command = self._command()
        with self.log.open("ab") as output:
            self._log_start = output.tell()
            self.process = subprocess.Popen(spawn_argv(command), **spawn_options(command, output=output.fileno()))
        self.pids.append(self.process.pid)

    async def wait_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not await asyncio.to_thread(self._ready):
            assert self.running, f"{self.name} ended: {self.tail()}"
            assert time.monotonic() < deadline, f"{self.name} does not answer: {self.tail()}"
            await asyncio.sleep(0.02)

    async def wait_ended(self, seconds: float = STOP_SECONDS) -> int:
        """Wait for its end; return the exit code, negative for a signal."""
        assert self.process is not None
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"{self.name} did not end within {seconds} s: {self.tail()}"
            await asyncio.sleep(0.01)
        return self.process.returncode

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def log_since_start(self) -> str:
        """What it has logged since it was started last."""
        return self.log.read_bytes()[self._log_start :].decode(errors="replace")

    def tail(self, characters: int = 3000) -> str:
        return self.log.read_text(errors="replace")[-characters:] if self.log.exists() else ""


class Stack:
    """A cluster in `folder`. Use it as an async context; on leaving, everything is stopped and no process is left."""

    def __init__(self, folder: Path, sizes: Sizes | None = None, *, seed: int = 0) -> None:
        self.folder = folder
        self.sizes = sizes or Sizes()
        self.seed = seed
        self.failpoints = folder / "failpoints"
        self.logs = folder / "logs"
        for path in (self.failpoints, self.logs):
            path.mkdir(parents=True, exist_ok=True)
        self.processes: dict[str, Managed] = {}
        self._proxies = ProxyLoop()
        self._links: dict[tuple[str, str], Proxy] = {}
        self._ports: dict[str, int] = {}
        self._closed: list[Callable[[], None]] = []

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    # Processes by name.

    def __getitem__(self, name: str) -> Managed:
        return self.processes[name]

    def names(self, role: str) -> list[str]:
        """`gateway`, `management` or `execution`: the names of its replicas."""
        return [name for name in self.processes if name.rpartition("-")[0] == role]

    def kill(self, *names: str) -> None:
        """End processes with SIGKILL, as near to the same moment as can be, and wait for the kernel."""
        for name in names:
            self[name].send(signal.SIGKILL)
        for name in names:
            process = self[name].process
            assert process is not None
            process.wait(10)

    def freeze(self, *names: str) -> None:
        """Stop processes; a database with all its sessions, a replica without its workers."""
        for name in names:
            self[name].send(signal.SIGSTOP)
            self._send_to_sessions(name, signal.SIGSTOP)

    def thaw(self, *names: str) -> None:
        for name in names:
            if self[name].running:
                self._send_to_sessions(name, signal.SIGCONT)
                self[name].send(signal.SIGCONT)

    def _send_to_sessions(self, name: str, number: signal.Signals) -> None:
        for pid in descendants([self[name].pid]) if name in _DATABASES else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    async def start(self, *names: str) -> None:
        """Start processes that have ended, and wait until they answer."""
        for name in names:
            self[name].spawn()
        for name in names:
            await self[name].wait_ready()

    async def stop(self, *names: str, within: float = STOP_SECONDS) -> list[int]:
        """Ask processes to end, as an operator does; return their exit codes."""
        for name in names:
            self[name].send(signal.SIGINT if name in _DATABASES else signal.SIGTERM)
        return [await self[name].wait_ended(within) for name in names]

    async def move(self, name: str) -> None:
        """Start a service that has ended again, on another port."""
        for source, target in list(self._links):
            if name in (source, target):
                self._links.pop((source, target)).close()
        self._add_service(name.rpartition("-")[0], name)
        await self.start(name)

    async def restart(self, *names: str) -> None:
        """Kill and start again."""
        self.kill(*[name for name in names if self[name].running])
        await self.start(*names)

    async def crash(self, name: str) -> None:
        """Kill a process and wait until all that it had started has ended too."""
        below = descendants([self[name].pid])
        self.kill(name)
        await wait_until(lambda: all(has_ended(pid) for pid in below), timeout=10)

    def spawn_second(self, name: str) -> Managed:
        """Start another process under the name of a service that runs, as a wrong configuration would."""
        role = name.rpartition("-")[0]
        command = self._service_command(role, name)
        env = {**command.env, "HEADRACE_GRPC_PORT": str(free_port())}
        second = Managed(name, lambda: replace(command, env=env), lambda: True, self.logs / f"{name}-second.log")
        second.spawn()
        return second

    async def whole(self, *, timeout: float = 30.0) -> None:
        """Wait until all managers and executors are alive in the view of a gateway, and it is ready."""

        async def is_whole() -> bool:
            try:
                async with httpx.AsyncClient(base_url=self.gateway_url(), timeout=5) as http:
                    stats = (await http.get("/api/stats")).json()
                    ready = (await http.get("/readyz")).status_code == 200
                    types = (await http.get("/api/task-types/noop")).json()
            except (httpx.HTTPError, ValueError):
                return False
            sizes = self.sizes
            counts = (stats.get("live_managers", 0), stats.get("live_executors"), len(types.get("replicas", ())))
            # Managers count as alive for 5 s after they died.
            return ready and counts[0] >= sizes.managers and counts[1:] == (sizes.executors, sizes.executors)

        await wait_until(is_whole, timeout=timeout)

    async def serves(self, name: str) -> bool:
        """Whether a service says that it is ready, over gRPC and past its proxy."""
        service = f"headrace.v1.{name.rpartition('-')[0].capitalize()}Service"
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self._ports[name]}") as channel:
            request = health_pb2.HealthCheckRequest(service=service)
            answer = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=5)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    # Links.

    def link(self, service: str, server: str) -> Proxy:
        """The way of one service to one server."""
        return self._links[service, server]

    def link_to(self, name: str) -> Proxy:
        """The way of everybody to a service or gateway; `links_to` a server."""
        return self._links["", name]

    def links_to(self, server: str) -> list[Proxy]:
        """The ways of all services to a server."""
        return [proxy for (_, target), proxy in self._links.items() if target == server]

    def link_names(self) -> list[tuple[str, str]]:
        """Arguments of `link`; those of `link_to` have no service."""
        return list(self._links)

    def all_links(self) -> list[Proxy]:
        return list(self._links.values())

    def heal(self) -> None:
        """End all faults of all links."""
        for proxy in self._links.values():
            proxy.heal()

    # Failpoints.

    def arm(self, point: str, action: str, *, replica: str = "") -> None:
        """Arm a failpoint: see servicekit.failpoints."""
        (self.failpoints / f"{point}.fired").unlink(missing_ok=True)
        draft = self.failpoints / f".{point}"
        draft.write_text(f"{action} {replica}".strip())
        draft.rename(self.failpoints / point)

    def has_fired(self, point: str) -> bool:
        return (self.failpoints / f"{point}.fired").exists()

    async def fired(self, point: str, *, timeout: float = 20.0) -> None:
        """Wait until a point has fired. A scenario whose fault did not happen proves nothing."""
        await wait_until(lambda: self.has_fired(point), timeout=timeout)

    def disarm(self) -> None:
        """Take all failpoints back, and let go what they hold."""
        for path in self.failpoints.iterdir():
            path.unlink(missing_ok=True)

    # Where things are, past the proxies: for clients and for looking.

    def port(self, name: str) -> int:
        """Where a server or service itself listens on 127.0.0.1."""
        return self._ports[name]

    def gateway_url(self, number: int = 0) -> str:
        return f"http://127.0.0.1:{self._ports[f'gateway-{number}']}"

    @property
    def task_dsn(self) -> str:
        return self._postgres.dsn("headrace")

    @property
    def result_dsn(self) -> str:
        return self._results.dsn("headrace_results")

    @property
    def redis_url(self) -> str:
        return self._redis.url

    async def query(self, sql: str, *, results: bool = False) -> list[tuple[object, ...]]:
        """Rows of a statement on the task database, or on the result database."""
        dsn = self.result_dsn if results else self.task_dsn
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            cursor = await connection.execute(sql.encode())
            return await cursor.fetchall() if cursor.description else []

    async def live_sessions(self) -> dict[str, int]:
        """The sessions that have not ended, by the name of their replica."""
        rows = await self.query("SELECT replica, session_id FROM executors WHERE ended_at IS NULL")
        return {str(replica): int(str(session_id)) for replica, session_id in rows}

    def log_lines(self, name: str) -> list[str]:
        return self[name].log.read_text(errors="replace").splitlines()

    # Start and end.

    async def _start(self) -> None:
        self._postgres = PostgresServer(self.folder / "postgres")
        self._results = PostgresServer(self.folder / "results")
        self._redis = RedisServer(self.folder / "redis")
        self._consul = RegistryServer(self.folder / "consul", consul=shutil.which("consul"))
        self._postgres.prepare(databases=["headrace"])
        self._results.prepare(databases=["headrace_results"])
        self._redis.prepare()
        self._consul.prepare()
        servers: tuple[_Server, ...] = (self._postgres, self._results, self._redis, self._consul)
        for name, server in zip(_SERVERS, servers, strict=True):
            self._ports[name] = server.port
            self._closed.append(server.close)
            command = partial(self._server_command, name, server)
            self.processes[name] = Managed(name, command, server.ready, self.logs / f"{name}.log")
        await self.start(*_SERVERS)
        sizes = self.sizes
        for role, count in (
            ("management", sizes.managers),
            ("execution", sizes.executors),
            ("gateway", sizes.gateways),
        ):
            for number in range(count):
                self._add_service(role, f"{role}-{number}")
        for name in list(self.processes):
            if name not in _SERVERS:
                self[name].spawn()
        await asyncio.gather(*(self[name].wait_ready() for name in self.processes if name not in _SERVERS))
        await self.whole(timeout=START_SECONDS)

    def _add_service(self, role: str, name: str) -> None:
        port = self._ports[name] = free_port()
        self._links["", name] = self._proxy(name, port, host="127.0.0.2", at=port)
        for server in _USED_BY[role]:
            self._links[name, server] = self._proxy(f"{name}>{server}", self._ports[server])
        ready = (lambda: _answers_ready(port)) if role == "gateway" else (lambda: accepts_connections(port))
        self.processes[name] = Managed(
            name, lambda: self._service_command(role, name), ready, self.logs / f"{name}.log"
        )

    def _server_command(self, name: str, server: _Server) -> Command:
        command = server.command()
        return replace(command, env={**command.env, **self.sizes.own_env.get(name, {})})

    def _proxy(self, label: str, target: int, *, host: str = "127.0.0.1", at: int = 0) -> Proxy:
        seed = zlib.crc32(f"{self.seed} {label}".encode())
        return Proxy(self._proxies, target=("127.0.0.1", target), host=host, port=at, seed=seed)

    def _service_command(self, role: str, name: str) -> Command:
        via = {server: self._links[name, server].port for server in _USED_BY[role]}
        env = {
            **{key: value for key, value in os.environ.items() if not key.startswith("HEADRACE_")},
            "HEADRACE_REPLICA": name,
            "HEADRACE_HOST": "127.0.0.1",
            "HEADRACE_ADVERTISE_HOST": "127.0.0.2",
            "HEADRACE_CONSUL_URL": f"http://127.0.0.1:{via['consul']}",
            "HEADRACE_TESTING": "1",
            "HEADRACE_FAILPOINTS": str(self.failpoints),
            "HEADRACE_GRACE": "5",
        }
        port = str(self._ports[name])
        if role == "gateway":
            env |= {"HEADRACE_HTTP_PORT": port, "HEADRACE_REDIS_URL": _rerouted(self.redis_url, via["redis"])}
        elif role == "management":
            env |= {
                "HEADRACE_GRPC_PORT": port,
                "HEADRACE_POSTGRES_DSN": _rerouted(self.task_dsn, via["postgres"]),
                "HEADRACE_REDIS_URL": _rerouted(self.redis_url, via["redis"]),
            }
        else:
            scratch = self.folder / "scratch" / name
            scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
            env |= {
                "HEADRACE_GRPC_PORT": port,
                "HEADRACE_RESULTS_DSN": _rerouted(self.result_dsn, via["results"]),
                "HEADRACE_WORKERS": str(self.sizes.workers),
                "HEADRACE_SCRATCH_DIR": str(scratch),
                "HEADRACE_TASK_MODULES": TEST_MODULES,
            }
        env |= {**self.sizes.env, **self.sizes.role_env.get(role, {}), **self.sizes.own_env.get(name, {})}
        return Command(argv=(sys.executable, "-m", MODULES[role]), env=env)

    async def _close(self) -> None:
        children = set(descendants(process.pid for process in self.processes.values() if process.running))
        for process in self.processes.values():
            if process.running:
                process.send(signal.SIGCONT)
        # Executors first: their workers must be seen to end with them.
        for role in ("gateway", "execution", "management"):
            for name in self.names(role):
                if self[name].running:
                    self[name].send(signal.SIGKILL)
        for name in ("consul", "redis", "results", "postgres"):
            if name in self.processes and self[name].running:
                self[name].send(signal.SIGQUIT if name in ("postgres", "results") else signal.SIGTERM)
        for process in self.processes.values():
            if process.process is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.process.wait(10)
                    continue
                process.process.kill()
                process.process.wait(10)
        for proxy in self._links.values():
            proxy.close()
        self._proxies.close()
        for close in self._closed:
            close()
        await wait_until(lambda: all(has_ended(pid) for pid in children), timeout=10)


def descendants(pids: Iterable[int]) -> list[int]:
    """The children of processes and theirs, as /proc shows them now."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                parent = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry))
    found, waiting = [], list(pids)
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _rerouted(url: str, port: int) -> str:
    """`url` with another port."""
    parts = urlsplit(url)
    return parts._replace(netloc=f"{parts.netloc.rpartition(':')[0]}:{port}").geturl()


def _answers_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False
