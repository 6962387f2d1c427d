"""Settings from the environment and from files."""

import os
import socket
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import Field, SecretStr

from servicekit.settings import ServiceSettings, SettingsError, describe, load_settings


class ExampleSettings(ServiceSettings):
    postgres_dsn: SecretStr
    workers: int = Field(default=2, ge=1)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("HEADRACE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HEADRACE_POSTGRES_DSN", "postgresql://secret")


def test_everything_but_the_stores_has_a_default() -> None:
    settings = load_settings(ExampleSettings)
    assert settings.replica == f"{socket.gethostname()}-{os.getpid()}"
    assert (settings.host, settings.grpc_port, settings.advertise_host) == ("127.0.0.1", 0, "127.0.0.1")
    assert (settings.log_format, settings.log_level, settings.grace) == ("json", "info", timedelta(seconds=30))


@pytest.mark.parametrize(("value", "grace"), [("2.5", 2.5), ("0", 0), ("PT1M", 60)])
def test_durations_are_numbers_of_seconds(monkeypatch: pytest.MonkeyPatch, value: str, grace: float) -> None:
    monkeypatch.setenv("HEADRACE_GRACE", value)
    assert load_settings(ExampleSettings).grace.total_seconds() == grace


def test_others_are_told_another_host_only_where_we_listen_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_HOST", "10.0.0.7")
    assert load_settings(ExampleSettings).advertise_host == "10.0.0.7"
    monkeypatch.setenv("HEADRACE_HOST", "0.0.0.0")
    assert load_settings(ExampleSettings).advertise_host not in ("0.0.0.0", "")
    monkeypatch.setenv("HEADRACE_ADVERTISE_HOST", "manager-1")
    assert load_settings(ExampleSettings).advertise_host == "manager-1"


def test_the_host_that_others_are_told_may_be_named_by_its_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_HOST", "0.0.0.0")
    monkeypatch.setenv("HEADRACE_ADVERTISE_HOST", "127.0.0.0/8")
    assert load_settings(ExampleSettings).current_host() == "127.0.0.1"


@pytest.mark.parametrize(
    ("network", "problem"),
    [
        # Of documentation (RFC 5737): no machine has an address in it.
        ("198.51.100.0/24", "this machine has no address in 198.51.100.0/24"),
        ("2001:db8::/32", "this machine has no address in 2001:db8::/32"),
        ("10.1.0.7/16", "10.1.0.7/16 has host bits set"),
        ("10.1.0.0/33", "'10.1.0.0/33' does not appear to be an IPv4 or IPv6 network"),
        ("manager/1", "'manager/1' does not appear to be an IPv4 or IPv6 network"),
    ],
)
def test_a_network_without_an_address_of_ours_is_refused(
    network: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_ADVERTISE_HOST", network)
    with pytest.raises(SettingsError) as caught:
        load_settings(ExampleSettings)
    assert str(caught.value) == f"HEADRACE_ADVERTISE_HOST: Value error, {problem}"


def test_a_secret_may_be_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "dsn"
    file.write_text("postgresql://from-file\n")
    monkeypatch.delenv("HEADRACE_POSTGRES_DSN")
    monkeypatch.setenv("HEADRACE_POSTGRES_DSN_FILE", str(file))
    assert load_settings(ExampleSettings).postgres_dsn.get_secret_value() == "postgresql://from-file"


def test_a_file_and_a_value_at_once_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEADRACE_POSTGRES_DSN_FILE", str(tmp_path))
    with pytest.raises(SettingsError, match="HEADRACE_POSTGRES_DSN and HEADRACE_POSTGRES_DSN_FILE"):
        load_settings(ExampleSettings)


def test_a_file_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HEADRACE_POSTGRES_DSN")
    monkeypatch.setenv("HEADRACE_POSTGRES_DSN_FILE", str(tmp_path / "none"))
    with pytest.raises(SettingsError, match=r"HEADRACE_POSTGRES_DSN_FILE: .*No such file"):
        load_settings(ExampleSettings)


def test_each_wrong_variable_is_named_without_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADRACE_POSTGRES_DSN")
    monkeypatch.setenv("HEADRACE_WORKERS", "zero")
    monkeypatch.setenv("HEADRACE_CONSUL_URL", "hunter2")
    with pytest.raises(SettingsError) as caught:
        load_settings(ExampleSettings)
    text = str(caught.value)
    assert all(f"HEADRACE_{name}: " in text for name in ("POSTGRES_DSN", "WORKERS", "CONSUL_URL"))
    assert "hunter2" not in text
    assert "\n" not in text


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_WORKERS", "")
    assert load_settings(ExampleSettings).workers == 2


def test_secrets_are_masked_where_settings_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_CONSUL_TOKEN", "hunter2")
    settings = load_settings(ExampleSettings)
    shown = describe(settings)
    assert shown["postgres_dsn"] == shown["consul_token"] == "**********"
    assert shown["workers"] == 2
    assert "hunter2" not in repr(settings)
