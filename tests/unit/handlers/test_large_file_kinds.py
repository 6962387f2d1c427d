"""What a value is taken for by the way it is written."""

import numpy as np
import pytest

from execution_service.handlers.large_files.cells import Cells, pack
from execution_service.handlers.large_files.columns import guess
from execution_service.handlers.large_files.kinds import Kind, kinds_of
from execution_service.handlers.large_files.models import ColumnType

_TEXTS = {
    Kind.INTEGER: ["0", "-12", "+7", "007", "9" * 32],
    Kind.DECIMAL: ["1.5", ".5", "5.", "-0.25", "1e5", "2.5E-3", "12345678901234567.5"],
    Kind.BOOLEAN: ["true", "false", "True", "FALSE", "tRuE"],
    Kind.DATE: [
        "2026-11-24",
        "2026-11-24T06:48",
        "2026-11-24 06:48",
        "2026-11-24T06:48:01",
        "2026-11-24 06:48:01",
        "2026-11-24T06:48:01Z",
        "2026-11-24T06:48:01.123",
        "2026-11-24T06:48:01.123Z",
        "2026-11-24 06:48:01.123456",
        "2026-11-24T06:48:01+01:00",
    ],
    Kind.TEXT: [
        "yes",
        "tru",
        "true ",
        "fals\x45x",
        "2026-1-24",
        "2026-11-2x",
        "2026/11/24",
        "2026-11-24x06:48",
        "2026-11-24T06-48",
        "24-11-2026",
        "12-34",
        "192.168.0.1",
        "12:30",
        "[1]",
        "{}",
        "null",
        "größe",
        "=1+1",
        "9" * 33,
        "1e141",
        "-",
    ],
}


@pytest.mark.parametrize("kind", list(_TEXTS))
def test_values_are_told_apart_by_their_look(kind: Kind) -> None:
    texts = _TEXTS[kind]
    cells = Cells(*pack([text.encode() for text in texts]), np.zeros(len(texts), np.intp))
    kinds, numbers, values = kinds_of(cells)
    assert dict(zip(texts, map(Kind, kinds.tolist()), strict=True)) == dict.fromkeys(texts, kind)
    assert len(numbers) == len(values) == (len(texts) if kind in (Kind.INTEGER, Kind.DECIMAL) else 0)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({}, ColumnType.EMPTY),
        ({Kind.INTEGER: 3}, ColumnType.INTEGER),
        ({Kind.INTEGER: 3, Kind.DECIMAL: 1}, ColumnType.DECIMAL),
        ({Kind.DATE: 3}, ColumnType.DATE),
        ({Kind.NESTED: 1}, ColumnType.NESTED),
        ({Kind.INTEGER: 99, Kind.TEXT: 1}, ColumnType.TEXT),
        ({Kind.BOOLEAN: 1, Kind.INTEGER: 1}, ColumnType.TEXT),
    ],
)
def test_a_column_is_what_all_its_values_are(counts: dict[Kind, int], expected: ColumnType) -> None:
    assert guess({kind: counts.get(kind, 0) for kind in Kind}) is expected
