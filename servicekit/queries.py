"""Named SQL statements from a `queries.sql` beside the repository that runs them."""

import re
from collections.abc import Iterator, Mapping
from importlib import resources

_NAME = re.compile(r"^--\s*name:\s*([a-z][a-z0-9_]*)\s*$", re.MULTILINE)


class Queries(Mapping[str, bytes]):
    """The statements of one file by name, without their comments."""

    def __init__(self, text: str) -> None:
        self._queries: dict[str, bytes] = {}
        _, *parts = _NAME.split(text)
        for name, body in zip(parts[::2], parts[1::2], strict=True):
            if name in self._queries:
                raise ValueError(f"two queries are named {name}")
            self._queries[name] = _statement(name, body)

    def __getitem__(self, name: str) -> bytes:
        return self._queries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._queries)

    def __len__(self) -> int:
        return len(self._queries)


def load_queries(package: str, resource: str = "queries.sql") -> Queries:
    """Read the queries of `package`. A name used twice, or a query without a statement, is a ValueError."""
    return Queries(resources.files(package).joinpath(resource).read_text(encoding="utf-8"))


def _statement(name: str, body: str) -> bytes:
    """The lines that are not comments: a percent sign in a comment would be taken for a parameter."""
    lines = [line.rstrip() for line in body.splitlines() if line.strip() and not line.lstrip().startswith("--")]
    if not lines:
        raise ValueError(f"query {name} has no statement")
    return "\n".join(lines).encode()
