"""Settings of a management replica."""

from datetime import timedelta

from pydantic import SecretStr

from servicekit.settings import ServiceSettings


class ManagementSettings(ServiceSettings):
    postgres_dsn: SecretStr
    redis_url: SecretStr
    # Finished tasks are removed after this long.
    retention: timedelta = timedelta(days=7)
