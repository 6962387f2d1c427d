"""Settings of the built-in task types, read from `HEADRACE_*` in the worker that runs them.

Of the service's environment, a worker is given these variables alone, and those named in `HEADRACE_TASK_ENV`.
"""

import functools
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class HandlerSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="HEADRACE_", frozen=True, env_ignore_empty=True)

    # Texts, not URL types: those would repair what is wrong, and it is the client of the handlers that judges these, as
    # they are.
    weather_url: str = Field(
        default="https://api.open-meteo.com/v1/forecast",
        description="Forecasts of Open-Meteo. A query, such as a key, is kept.",
    )
    geocoding_url: str = Field(
        default="https://geocoding-api.open-meteo.com/v1/search",
        description="Open-Meteo's search for places by name. A query, such as a key, is kept.",
    )
    currency_url: str = Field(
        default="https://api.frankfurter.dev/v1",
        description="Frankfurter's rates of exchange; `/latest` or `/DATE` follows.",
    )
    private_addresses: bool = Field(
        default=False, description="Whether handlers may call addresses that are not public: for APIs of one's own."
    )
    input_dir: Path | None = Field(
        default=None, description="Folder from which `large_file_processing` reads files; without it, it reads none."
    )

    @property
    def api_urls(self) -> list[str]:
        """Where the public APIs are."""
        return [self.weather_url, self.geocoding_url, self.currency_url]


@functools.cache
def handler_settings() -> HandlerSettings:
    """Return the settings of this process. Raises pydantic's ValidationError for a wrong one."""
    return HandlerSettings()


HANDLER_VARIABLES = frozenset(f"HEADRACE_{name.upper()}" for name in HandlerSettings.model_fields)
