"""The demo's tasks ask the recorded APIs here."""

from tests.unit.handlers.conftest import recorded

__all__ = ["recorded"]
