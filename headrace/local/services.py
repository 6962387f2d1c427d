"""The services of a local cluster as programs: which settings each one gets, where it listens and logs."""

import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from headrace.local.process import LOOPBACK, Command, free_port
from headrace.local.supervisor import Program

MODULES = {"gateway": "gateway", "management": "management_service", "execution": "execution_service"}
# What the supervisor allows each role when everything stops; see STOP_ORDER in up.py.
GRACE_SECONDS = {"gateway": 2, "execution": 8, "management": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """Where the services find what they share."""

    postgres_dsn: str
    results_dsn: str
    redis_url: str
    consul_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceOptions:
    """How many of which service. `role_env` adds settings to all services of a role."""

    port: int
    managers: int
    executors: int
    workers: int
    role_env: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


class ServiceFactory:
    """Makes the programs of one cluster."""

    def __init__(self, data_dir: Path, *, stores: Stores, options: ServiceOptions, inherited_descriptor: int) -> None:
        self._data_dir = data_dir
        self._stores = stores
        self._options = options
        self._inherited_descriptor = inherited_descriptor

    def programs(self) -> list[Program]:
        """Return the programs of all services; those that others wait for come first."""
        options = self._options
        return [
            *(self._management(number) for number in range(options.managers)),
            *(self._execution(number) for number in range(options.executors)),
            self._gateway(),
        ]

    def _management(self, number: int) -> Program:
        settings = {"HEADRACE_POSTGRES_DSN": self._stores.postgres_dsn, "HEADRACE_REDIS_URL": self._stores.redis_url}
        return self._grpc_service("management", number, settings)

    def _execution(self, number: int) -> Program:
        scratch = self._data_dir / "scratch" / f"execution-{number}"
        scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings = {
            "HEADRACE_RESULTS_DSN": self._stores.results_dsn,
            "HEADRACE_WORKERS": str(self._options.workers),
            "HEADRACE_SCRATCH_DIR": str(scratch),
        }
        return self._grpc_service("execution", number, settings, http_port=free_port())

    def _gateway(self) -> Program:
        settings = {"HEADRACE_HTTP_PORT": str(self._options.port), "HEADRACE_REDIS_URL": self._stores.redis_url}
        return self._service("gateway", 0, settings, port=self._options.port)

    def _grpc_service(
        self, role: str, number: int, settings: Mapping[str, str], *, http_port: int | None = None
    ) -> Program:
        port = free_port()
        ports = {"HEADRACE_GRPC_PORT": str(port)}
        if http_port is not None:
            ports["HEADRACE_HTTP_PORT"] = str(http_port)
        return self._service(role, number, {**ports, **settings}, port=port, http_port=http_port)

    def _service(
        self, role: str, number: int, settings: Mapping[str, str], *, port: int, http_port: int | None = None
    ) -> Program:
        program_id = f"{role}-{number}"
        own = {
            "HEADRACE_REPLICA": program_id,
            "HEADRACE_HOST": LOOPBACK,
            "HEADRACE_CONSUL_URL": self._stores.consul_url,
            "HEADRACE_GRACE": str(GRACE_SECONDS[role]),
            **settings,
        }
        return Program(
            role=role,
            program_id=program_id,
            command=Command(
                argv=(sys.executable, "-m", MODULES[role]),
                env={**_environment(own), **self._options.role_env.get(role, {})},
                stop_signal=signal.SIGTERM,
                kept_descriptors=(self._inherited_descriptor,),
            ),
            address=f"{LOOPBACK}:{port}",
            http_address=f"{LOOPBACK}:{http_port}" if http_port is not None else "",
            log=self._data_dir / "logs" / f"{program_id}.log",
        )


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    """Return our environment with `own` settings; what the caller has set for another installation must not win."""
    replaced = {f"{name}_FILE" for name in own}
    return {name: value for name, value in os.environ.items() if name not in replaced} | dict(own)
