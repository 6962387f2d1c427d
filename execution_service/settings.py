"""Settings of an execution replica, read from `HEADRACE_*`."""

import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, SecretStr, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import NoDecode

from execution_service.workers.lane import WORKERS_MAX
from servicekit.settings import RETENTION_MAX, RETENTION_MIN, Seconds, ServiceSettings, variable


def _names(value: object) -> object:
    """Variables hold names separated by commas."""
    if isinstance(value, str):
        return tuple(name.strip() for name in value.split(",") if name.strip())
    return value


class ExecutionSettings(ServiceSettings):
    results_dsn: SecretStr = Field(description="The result database, as a libpq connection string.")
    http_port: int = Field(
        default=0,
        ge=0,
        le=65535,
        description="Where live streams of what runs here are served; 0 takes a free port, which Consul tells.",
    )
    workers: int = Field(
        default=2,
        ge=1,
        le=WORKERS_MAX,
        description="Worker processes of the pool `cpu`, each for one attempt at a time.",
    )
    workers_min: int | None = Field(
        default=None,
        ge=1,
        le=WORKERS_MAX,
        description="Fewest of them that the load may lead to; else `HEADRACE_WORKERS`.",
    )
    workers_max: int | None = Field(
        default=None,
        ge=1,
        le=WORKERS_MAX,
        description="Most of them that the load may lead to; else `HEADRACE_WORKERS`.",
    )
    workers_idle: Seconds = Field(
        default=timedelta(seconds=30),
        ge=timedelta(seconds=1),
        le=timedelta(days=1),
        description="After so long without need for one of the workers above the fewest it is retired.",
    )
    io_slots: int = Field(
        default=64, ge=1, le=10_000, description="Attempts that the worker process of the pool `io` runs at once."
    )
    worker_tasks_max: int = Field(
        default=1_000_000, ge=0, description="A worker process is replaced after so many tasks; 0: never."
    )
    worker_memory_max: int = Field(
        default=1024,
        ge=0,
        le=1024 * 1024,
        description="A worker process is replaced when it holds more MiB than this behind a task; 0: never.",
    )
    task_modules: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)] = Field(
        default=(), description="Modules with task types beside those built in."
    )
    task_env: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)] = Field(
        default=(),
        description="Variables of the service that handlers may see beside the basic ones, such as keys of services "
        "they call.",
    )
    scratch_dir: Path = Field(
        default_factory=lambda: Path(tempfile.gettempdir()) / "headrace-scratch",
        description="Attempts get their scratch directories below it. Unless it is set, it is made in the folder for "
        "temporary files.",
    )
    spool_bytes: int = Field(
        default=256 * 1024 * 1024,
        ge=1024 * 1024,
        description="Bytes of results that may wait while the result database is away, before no more work is asked "
        "for.",
    )
    retention: Seconds = Field(
        default=timedelta(days=7),
        ge=RETENTION_MIN,
        le=RETENTION_MAX,
        description="How long finished tasks are kept; results stay a day longer.",
    )

    @field_validator("workers_min", "workers_max")
    @classmethod
    def _surrounds_workers(cls, value: int | None, info: ValidationInfo) -> int | None:
        workers = info.data.get("workers")
        if value is None or workers is None:
            return value
        if info.field_name == "workers_min" and value > workers:
            raise PydanticCustomError("workers_min", f"{value} is above {variable('workers')}, which is {workers}")
        if info.field_name == "workers_max" and value < workers:
            raise PydanticCustomError("workers_max", f"{value} is below {variable('workers')}, which is {workers}")
        return value

    @property
    def workers_range(self) -> tuple[int, int]:
        """How many fewer, and how many more than `workers` the load may lead to."""
        return (self.workers_min or self.workers) - self.workers, (self.workers_max or self.workers) - self.workers
