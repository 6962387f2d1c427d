"""How many tasks a manager may send on each stream, and who gets the next ones.

Running totals of a stream: `granted` by the replica; `sent` and `returned` by us. Open demand is what is left of
`granted`. What is being claimed or inserted for a stream is reserved meanwhile, so that nothing is counted twice.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(slots=True)
class Account:
    """The demand of one pool on one stream."""

    session_id: int
    types: frozenset[str]
    granted: int = 0
    sent: int = 0
    returned: int = 0
    reserved: int = 0

    @property
    def open(self) -> int:
        """Tasks that may still be claimed for this stream."""
        return self.granted - self.sent - self.returned - self.reserved

    def grant(self, total: int) -> bool:
        """Take the replica's running total; return whether it grew. An older total changes nothing."""
        if total <= self.granted:
            return False
        self.granted = total
        return True

    def reserve(self, count: int) -> None:
        self.reserved += count

    def release(self, count: int) -> None:
        self.reserved -= count

    def send(self, count: int) -> None:
        """Turn `count` reserved ones into sent ones."""
        self.reserved -= count
        self.sent += count

    def give_back(self) -> int:
        """Return all open demand; what is reserved stays ours. The answer to a recall."""
        count = max(self.open, 0)
        self.returned += count
        return count


def spread(accounts: Sequence[Account], count: int) -> list[Account]:
    """Choose an account for each of up to `count` tasks, so that replicas fill evenly.

    Shares are proportional to open demand, the emptiest replica first.
    """
    available = sorted((account for account in accounts if account.open > 0), key=lambda a: -a.open)
    total = sum(account.open for account in available)
    count = min(count, total)
    chosen: list[Account] = []
    for position, account in enumerate(available):
        left = count - len(chosen)
        is_last = position == len(available) - 1
        share = left if is_last else min(left, account.open, -(-left * account.open // total))
        total -= account.open
        chosen.extend([account] * share)
    return chosen


def by_types(accounts: Iterable[Account]) -> dict[frozenset[str], list[Account]]:
    """Group accounts with open demand by the types that their replicas run: one claim serves a group."""
    groups: dict[frozenset[str], list[Account]] = {}
    for account in accounts:
        if account.open > 0:
            groups.setdefault(account.types, []).append(account)
    return groups
