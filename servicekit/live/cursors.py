"""Places in the stream of updates, as clients give them back to go on where they were."""

import re
from typing import NamedTuple, Self

from servicekit.errors import FieldError, InvalidArgument

_FORM = re.compile(r"(\d{1,16})-(\d{1,16})\.(\d{1,6})\.(\d{1,6})", re.ASCII)


class Cursor(NamedTuple):
    """A place: an entry of the Redis stream (its two numbers), an update in it, and a step at that update.

    Updates that should have come before that one are told at its place, a step after the other.
    """

    ms: int
    seq: int
    number: int
    step: int = 0

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}.{self.number}.{self.step}"

    @classmethod
    def parse(cls, text: str, *, field: str = "cursor") -> Self:
        """Read what `str` gave. Raises InvalidArgument that names `field`."""
        match = _FORM.fullmatch(text)
        if match is None:
            message = "Expected the cursor of an event, as it came."
            raise InvalidArgument(message, code="invalid_cursor", fields=[FieldError(field, "format", message)])
        return cls(*map(int, match.groups()))
