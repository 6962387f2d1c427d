"""Settings of a management replica come from the environment."""

from datetime import timedelta

import pytest

from management_service.settings import ManagementSettings
from servicekit.settings import SettingsError, load_settings


@pytest.fixture(autouse=True)
def stores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_POSTGRES_DSN", "postgresql://h/t")
    monkeypatch.setenv("HEADRACE_REDIS_URL", "redis://h/0")


def test_retention_is_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_RETENTION", "3600")
    assert load_settings(ManagementSettings).retention == timedelta(hours=1)


@pytest.mark.parametrize("seconds", ["-1", "0", "59", "1e12"])
def test_a_retention_that_would_remove_everything_or_overflow_is_refused(
    seconds: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_RETENTION", seconds)
    with pytest.raises(SettingsError, match="HEADRACE_RETENTION: Input should be"):
        load_settings(ManagementSettings)
