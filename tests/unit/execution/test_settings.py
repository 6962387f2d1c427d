"""Settings of an execution replica come from the environment."""

from datetime import timedelta

import pytest

from execution_service.settings import ExecutionSettings
from servicekit.settings import SettingsError, load_settings


def test_modules_are_separated_by_commas_and_durations_are_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_RESULTS_DSN", "postgresql://h/r")
    monkeypatch.setenv("HEADRACE_TASK_MODULES", "myapp.tasks, other.tasks,")
    monkeypatch.setenv("HEADRACE_RETENTION", "3600")
    settings = load_settings(ExecutionSettings)
    assert settings.task_modules == ("myapp.tasks", "other.tasks")
    assert settings.retention == timedelta(hours=1)
    assert settings.workers == 2
    assert (settings.worker_tasks_max, settings.worker_memory_max) == (1_000_000, 1024)


@pytest.mark.parametrize(("name", "value"), [("TASKS_MAX", "-1"), ("MEMORY_MAX", "-1"), ("MEMORY_MAX", "1.5")])
def test_limits_of_workers_are_whole_numbers_from_0(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv("HEADRACE_RESULTS_DSN", "postgresql://h/r")
    monkeypatch.setenv(f"HEADRACE_WORKER_{name}", value)
    with pytest.raises(SettingsError, match=f"HEADRACE_WORKER_{name}"):
        load_settings(ExecutionSettings)
