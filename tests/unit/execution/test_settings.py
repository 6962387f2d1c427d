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


def test_the_number_of_workers_is_fixed_unless_bounds_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_RESULTS_DSN", "postgresql://h/r")
    monkeypatch.setenv("HEADRACE_WORKERS", "4")
    settings = load_settings(ExecutionSettings)
    assert settings.workers_range == (0, 0)
    monkeypatch.setenv("HEADRACE_WORKERS_MAX", "8")
    settings = load_settings(ExecutionSettings)
    assert settings.workers_range == (0, 4)
    monkeypatch.setenv("HEADRACE_WORKERS_MIN", "1")
    assert load_settings(ExecutionSettings).workers_range == (-3, 4)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("HEADRACE_WORKERS_MIN", "5", "HEADRACE_WORKERS_MIN: 5 is above HEADRACE_WORKERS, which is 4"),
        ("HEADRACE_WORKERS_MAX", "3", "HEADRACE_WORKERS_MAX: 3 is below HEADRACE_WORKERS, which is 4"),
        ("HEADRACE_WORKERS_MAX", "257", "HEADRACE_WORKERS_MAX: Input should be less than or equal to 256"),
        ("HEADRACE_WORKERS_MIN", "0", "HEADRACE_WORKERS_MIN: Input should be greater than or equal to 1"),
    ],
)
def test_bounds_that_do_not_surround_the_number_of_workers_are_refused(
    name: str, value: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_RESULTS_DSN", "postgresql://h/r")
    monkeypatch.setenv("HEADRACE_WORKERS", "4")
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings(ExecutionSettings)
    assert str(caught.value) == problem
