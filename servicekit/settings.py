"""Settings that every service has, read from `HEADRACE_*`; `HEADRACE_X_FILE` names a file that holds X."""

import contextlib
import os
import socket
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from servicekit import failpoints
from servicekit.addresses import current_host, reachable_host

ENV_PREFIX = "HEADRACE_"
_FILE_SUFFIX = "_FILE"


def _seconds(value: Any) -> Any:
    """Variables hold text: a number in it means seconds. ISO 8601 durations are left to pydantic."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return float(value)
    return value


# A duration that the environment gives as a number of seconds.
Seconds = Annotated[timedelta, BeforeValidator(_seconds)]
# How long finished tasks may be kept.
RETENTION_MIN, RETENTION_MAX = timedelta(minutes=1), timedelta(days=3650)


class SettingsError(Exception):
    """A setting is missing or wrong; the text names each variable."""


class SecretFiles(PydanticBaseSettingsSource):
    """Reads a setting from the file that `HEADRACE_<NAME>_FILE` names: secrets need not be in the environment."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        path = os.environ.get(variable(field_name) + _FILE_SUFFIX)
        if not path:
            return None, field_name, False
        if variable(field_name) in os.environ:
            raise SettingsError(f"{variable(field_name)} and {variable(field_name)}{_FILE_SUFFIX} are both set")
        try:
            return Path(path).read_text(encoding="utf-8").rstrip("\r\n"), field_name, False
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{variable(field_name)}{_FILE_SUFFIX}: {error}") from error

    def __call__(self) -> dict[str, Any]:
        values = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in values.items() if value is not None}


class ServiceSettings(BaseSettings):
    """What every service needs to know; services add their own fields in a subclass."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, frozen=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True
    )

    replica: str = Field(
        default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}",
        min_length=1,
        max_length=200,
        description="Name of this replica: of its host and process, unless it is set here to stay over restarts.",
    )
    host: str = Field(default="127.0.0.1", description="The address to listen on.")
    grpc_port: int = Field(
        default=0,
        ge=0,
        le=65535,
        description="Where to listen for gRPC, which the gateway does not; 0 takes a free port.",
    )
    advertise_host: str = Field(
        default_factory=lambda data: reachable_host(data.get("host", "")),
        description="Where others find this replica: an address, a name, or a network such as `10.1.0.0/16`, in which "
        "its address may change. Unless it is set, `HEADRACE_HOST`, or where those are all addresses, that of the "
        "host's name.",
    )
    consul_url: str = Field(default="http://127.0.0.1:8500", pattern=r"^https?://[^/]+", description="The registry.")
    consul_token: SecretStr | None = Field(default=None, description="What to show to the registry.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="What is logged.")
    log_format: Literal["json", "console"] = Field(default="json", description="`json`: one object in a line.")
    grace: Seconds = Field(
        default=timedelta(seconds=30),
        ge=timedelta(0),
        le=timedelta(hours=1),
        description="How long what runs may go on after the order to stop.",
    )

    @field_validator("advertise_host")
    @classmethod
    def _reachable_now(cls, value: str) -> str:
        current_host(value)
        return value

    def current_host(self) -> str:
        """Where others find us now. Raises ValueError while we have no address in the network."""
        return current_host(self.advertise_host)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, SecretFiles(settings_cls)


Settings = TypeVar("Settings", bound=BaseSettings)


def load_settings(cls: type[Settings]) -> Settings:
    """Read the settings from the environment. Raises SettingsError with one line that names each wrong variable."""
    try:
        failpoints.configure(os.environ)
    except failpoints.FailpointsRefusedError as error:
        raise SettingsError(str(error)) from error
    try:
        return cls()
    except ValidationError as error:
        raise SettingsError(problems(error)) from error


def problems(error: ValidationError) -> str:
    """Name each wrong variable and what is wrong with it, without its value: it may be a secret."""
    return "; ".join(f"{variable('_'.join(map(str, item['loc'])))}: {item['msg']}" for item in error.errors())


def variable(field_name: str) -> str:
    """The environment variable of a setting."""
    return ENV_PREFIX + field_name.upper()


def describe(settings: ServiceSettings) -> dict[str, Any]:
    """The settings as they may be shown and logged: secrets are masked."""
    return settings.model_dump(mode="json")
