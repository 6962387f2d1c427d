"""Settings of the gateway."""

from datetime import timedelta

from pydantic import Field, SecretStr

from servicekit.settings import Seconds, ServiceSettings

MIB = 1024 * 1024


class GatewaySettings(ServiceSettings):
    http_port: int = Field(default=8080, ge=0, le=65535)
    # May hold a password.
    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    # The whole body of one request.
    body_bytes_max: int = Field(default=32 * MIB, ge=1024, le=32 * MIB)
    # The bodies of all requests in progress together.
    bodies_bytes_max: int = Field(default=128 * MIB, ge=32 * MIB)
    # The data of one task, as it came.
    data_bytes_max: int = Field(default=8 * MIB, ge=1024, le=32 * MIB)
    batch_tasks_max: int = Field(default=1000, ge=1, le=5000)
    # What may wait in the Redis stream; more is refused with `backlog_full`.
    backlog_tasks_max: int = Field(default=1_000_000, ge=1)
    backlog_bytes_max: int = Field(default=1024 * MIB, ge=MIB)
    # How long a body may take to arrive.
    body_timeout: Seconds = Field(default=timedelta(seconds=15), gt=timedelta(0), le=timedelta(minutes=10))
    connections_max: int = Field(default=10_000, ge=1)
    # How long requests may go on after the order to stop.
    grace: Seconds = Field(default=timedelta(seconds=6), ge=timedelta(0), le=timedelta(minutes=5))
