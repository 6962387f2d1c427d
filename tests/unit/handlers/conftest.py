"""What handlers find around them: their settings lead to the recorded APIs, not to the public ones."""

from collections.abc import Iterator

import pytest

from execution_service.handlers.settings import handler_settings
from headrace.recorded_apis import RecordedApis, recorded_apis


@pytest.fixture(scope="package", autouse=True)
def recorded() -> Iterator[RecordedApis]:
    """The recorded APIs, which every handler asks unless a test says otherwise."""
    with pytest.MonkeyPatch.context() as patch, recorded_apis() as apis:
        for name, value in apis.environment.items():
            patch.setenv(name, value)
        handler_settings.cache_clear()
        yield apis
    handler_settings.cache_clear()


@pytest.fixture
def settings_from(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """For tests that set variables of their own, with `setenv`, before the first call of a handler."""
    handler_settings.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    handler_settings.cache_clear()
