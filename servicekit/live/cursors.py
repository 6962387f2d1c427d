"""Places in the stream of updates, as clients give them back to go on where they were."""

import re
from dataclasses import dataclass
from typing import Self

from servicekit.errors import FieldError, InvalidArgument

_FORM = re.compile(r"(\d{1,16})-(\d{1,16})\.(\d{1,6})\.(\d{1,6})", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """A place: an entry of the Redis stream (its two numbers), an update in it, and a step beyond that.

    An update that came before its predecessor is told after it: its place is that of the predecessor, a step further.
    """

    ms: int
    seq: int
    index: int
    step: int = 0

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}.{self.index}.{self.step}"

    @classmethod
    def parse(cls, text: str, *, field: str = "cursor") -> Self:
        """Read what `str` gave. Raises InvalidArgument that names `field`."""
        match = _FORM.fullmatch(text)
        if match is None:
            message = "Expected the cursor of an event, as it came."
            raise InvalidArgument(message, code="invalid_cursor", fields=[FieldError(field, "format", message)])
        return cls(*map(int, match.groups()))
