"""Whether this process can do its work now, and if not, why."""

from collections.abc import Callable

# Answers None when all is well, otherwise the reason in a few words.
Check = Callable[[], str | None]


class Readiness:
    """Named checks; all must pass. A check only looks at what is known already: it must not wait."""

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}

    def add(self, name: str, check: Check) -> None:
        self._checks[name] = check

    def add_flag(self, name: str, is_well: Callable[[], bool]) -> None:
        """A check without a reason of its own."""
        self._checks[name] = lambda: None if is_well() else "not ready"

    def problems(self) -> dict[str, str]:
        """The reason of each check that does not pass."""
        reasons = {name: check() for name, check in self._checks.items()}
        return {name: reason for name, reason in reasons.items() if reason is not None}

    @property
    def ready(self) -> bool:
        return not self.problems()
