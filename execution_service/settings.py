"""Settings of an execution replica, read from `HEADRACE_*`."""

import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from execution_service.workers.lane import WORKERS_MAX
from servicekit.settings import Seconds, ServiceSettings


def _names(value: object) -> object:
    """Variables hold names separated by commas."""
    if isinstance(value, str):
        return tuple(name.strip() for name in value.split(",") if name.strip())
    return value


class ExecutionSettings(ServiceSettings):
    # The result DB.
    results_dsn: SecretStr
    # Where live streams of what runs here are served; 0 takes a free port, which Consul tells.
    http_port: int = Field(default=0, ge=0, le=65535)
    # Worker processes of the pool `cpu`, each for one attempt at a time.
    workers: int = Field(default=2, ge=1, le=WORKERS_MAX)
    # Attempts that the worker process of the pool `io` runs at once.
    io_slots: int = Field(default=64, ge=1, le=10_000)
    # A worker process is replaced after so many tasks; 0: never.
    worker_tasks_max: int = Field(default=1_000_000, ge=0)
    # A worker process is replaced when it holds more memory than this behind a task, in MiB; 0: never.
    worker_memory_max: int = Field(default=1024, ge=0, le=1024 * 1024)
    # Modules with task types beside those built in.
    task_modules: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)] = ()
    # Variables of our environment that handlers may see beside the basic ones, such as keys of services they call.
    task_env: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)] = ()
    # Attempts get their scratch directories below it.
    scratch_dir: Path = Field(default_factory=lambda: Path(tempfile.gettempdir()) / "headrace-scratch")
    # How many bytes of results may wait while the result DB is away, before no more work is asked for.
    spool_bytes: int = Field(default=256 * 1024 * 1024, ge=1024 * 1024)
    # How long finished tasks are kept; results stay a day longer.
    retention: Seconds = Field(default=timedelta(days=7), ge=timedelta(minutes=1))
