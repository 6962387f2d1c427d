"""Settings of the built-in task types, read from `HEADRACE_*` in the worker that runs them.

Of the service's environment, a worker is given these variables alone, and those named in `HEADRACE_TASK_ENV`.
"""

import functools
from pathlib import Path

from pydantic import AnyHttpUrl, Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class HandlerSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="HEADRACE_", frozen=True)

    # Open-Meteo's forecasts, and its search for places by name.
    weather_url: AnyHttpUrl = AnyHttpUrl("https://api.open-meteo.com/v1/forecast")
    geocoding_url: AnyHttpUrl = AnyHttpUrl("https://geocoding-api.open-meteo.com/v1/search")
    # Frankfurter's rates of exchange.
    currency_url: AnyHttpUrl = AnyHttpUrl("https://api.frankfurter.dev/v1")
    # Whether handlers may call addresses that are not public: for APIs of one's own, and for tests.
    private_addresses: bool = False
    # Folder from which `large_file_processing` reads files; without it, it reads none.
    input_dir: Path | None = Field(default=None)


@functools.cache
def handler_settings() -> HandlerSettings:
    """Return the settings of this process. Raises pydantic's ValidationError for a wrong one."""
    return HandlerSettings()
