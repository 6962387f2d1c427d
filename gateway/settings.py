"""Settings of the gateway."""

from datetime import timedelta

from pydantic import Field, SecretStr

from servicekit.settings import Seconds, ServiceSettings

MIB = 1024 * 1024


class GatewaySettings(ServiceSettings):
    http_port: int = Field(default=8080, ge=0, le=65535, description="Where to listen; 0 takes a free port.")
    redis_url: SecretStr = Field(
        default=SecretStr("redis://127.0.0.1:6379/0"), description="Redis, with its password where it has one."
    )
    body_bytes_max: int = Field(
        default=32 * MIB, ge=1024, le=32 * MIB, description="Bytes of the whole body of one request."
    )
    bodies_bytes_max: int = Field(
        default=128 * MIB, ge=32 * MIB, description="Bytes of the bodies of all requests in progress together."
    )
    data_bytes_max: int = Field(
        default=8 * MIB, ge=1024, le=32 * MIB, description="Bytes of the data of one task, as it came."
    )
    batch_tasks_max: int = Field(default=1000, ge=1, le=5000, description="Tasks of one batch.")
    backlog_tasks_max: int = Field(
        default=1_000_000, ge=1, description="Tasks that may wait in Redis; more are refused with `backlog_full`."
    )
    backlog_bytes_max: int = Field(
        default=1024 * MIB, ge=MIB, description="Bytes that may wait in Redis; more are refused with `backlog_full`."
    )
    body_timeout: Seconds = Field(
        default=timedelta(seconds=15),
        gt=timedelta(0),
        le=timedelta(minutes=10),
        description="How long a body may take to arrive.",
    )
    connections_max: int = Field(default=10_000, ge=1, description="Connections of clients, live streams included.")
    grace: Seconds = Field(
        default=timedelta(seconds=6),
        ge=timedelta(0),
        le=timedelta(minutes=5),
        description="How long requests may go on after the order to stop.",
    )
