"""The values of some rows, packed together so that numpy works on all of them at once."""

from dataclasses import dataclass, replace

import numpy as np

from execution_service.handlers.large_files.packed import MARGIN, Buffer, Indices, Mask, buffer_of


@dataclass(frozen=True, slots=True)
class Cells:
    """Values, column after column, as pieces of one buffer. Missing values are left out.

    `quoted` marks values that are text whatever they look like; None where the look decides.
    """

    buffer: Buffer
    starts: Indices
    lengths: Indices
    columns: Indices
    quoted: Mask | None = None

    def where(self, mask: Mask) -> "Cells":
        """Return the cells that the mask marks."""
        if mask.all():
            return self
        return replace(
            self,
            starts=self.starts[mask],
            lengths=self.lengths[mask],
            columns=self.columns[mask],
            quoted=self.quoted[mask] if self.quoted is not None else None,
        )

    def lengths_in_characters(self) -> Indices:
        """Return how many characters of UTF-8 each value has."""
        continuing = (self.buffer & 0xC0) == 0x80
        if not continuing.any():
            return self.lengths
        before = np.cumsum(continuing, dtype=np.intp)
        # What is before a value ends with the byte before it: the margin sees to it that there is one.
        inside: Indices = before[self.starts + self.lengths - 1] - before[self.starts - 1]
        return self.lengths - inside


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows of a file: how many, and what is in them."""

    rows: int
    cells: Cells


def pack(texts: list[bytes]) -> tuple[Buffer, Indices, Indices]:
    """Return a buffer of all texts, and where in it each begins and how long it is."""
    lengths = np.fromiter(map(len, texts), np.intp, len(texts))
    return buffer_of(b"".join(texts)), np.cumsum(lengths) - lengths + len(MARGIN), lengths


def batch_of_rows(buffer: Buffer, starts: Indices, lengths: Indices, width: int) -> Batch:
    """Return values that are given row after row, each of `width` columns; empty ones are missing."""
    rows = len(starts) // width
    columns = np.repeat(np.arange(width), rows)
    cells = Cells(buffer, starts.reshape(rows, width).T.ravel(), lengths.reshape(rows, width).T.ravel(), columns)
    return Batch(rows, cells.where(cells.lengths > 0))
