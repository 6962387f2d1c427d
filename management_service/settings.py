"""Settings of a management replica."""

from datetime import timedelta

from pydantic import SecretStr

from servicekit.settings import Seconds, ServiceSettings


class ManagementSettings(ServiceSettings):
    postgres_dsn: SecretStr
    redis_url: SecretStr
    # Finished tasks are removed after this long.
    retention: Seconds = timedelta(days=7)
