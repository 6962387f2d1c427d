"""Settings of a management replica."""

from datetime import timedelta

from pydantic import Field, SecretStr

from servicekit.settings import RETENTION_MAX, RETENTION_MIN, Seconds, ServiceSettings


class ManagementSettings(ServiceSettings):
    postgres_dsn: SecretStr = Field(description="The task database, as a libpq connection string.")
    redis_url: SecretStr = Field(description="Redis, with its password where it has one.")
    retention: Seconds = Field(
        default=timedelta(days=7),
        ge=RETENTION_MIN,
        le=RETENTION_MAX,
        description="Finished tasks are removed after this long. Give execution replicas the same.",
    )
