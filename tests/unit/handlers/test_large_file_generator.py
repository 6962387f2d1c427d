"""Generated files are the same for the same seed, of the size that was asked for, and what they are said to be."""

import csv
import hashlib
import io
import json
from datetime import date
from typing import Any

import pytest

from execution_service.handlers.large_files.generator import generate
from execution_service.handlers.large_files.models import FileFormat, GeneratedFile, GeneratedKind
from headrace.tasks import PermanentError

_ALL = list(GeneratedKind)


def _make(file_format: FileFormat = FileFormat.CSV, **wanted: Any) -> bytes:
    return b"".join(part.text for part in generate(GeneratedFile(**wanted), file_format))


def _is_valid(kind: str, text: str) -> bool:
    if kind == "integer":
        return str(int(text)) == text and 0 <= int(text) < 1_000_000
    if kind == "decimal":
        return f"{float(text):.2f}" == text and 0 <= float(text) < 10_000
    if kind == "date":
        return date(2000, 1, 1) <= date.fromisoformat(text) < date(2030, 1, 1)
    return {"word": text.isalpha(), "boolean": text in ("true", "false"), "phrase": "," in text or '"' in text}[kind]


def test_the_same_seed_makes_the_same_bytes_on_any_machine() -> None:
    made = [_make(file_format, rows=20_000, columns=_ALL, seed=7, missing=0.1) for file_format in FileFormat]
    assert [hashlib.sha256(content).hexdigest()[:16] for content in made] == ["081cdd6b49f43a7f", "86cb61bcefc1accd"]


def test_another_seed_makes_other_bytes() -> None:
    made = [_make(rows=10, seed=seed) for seed in (0, 1, 2**53)]
    assert len(set(made)) == 3


def test_columns_of_the_same_kind_differ() -> None:
    for row in list(csv.reader(io.StringIO(_make(rows=50, columns=[GeneratedKind.INTEGER] * 3).decode())))[1:]:
        assert len(set(row)) == 3


@pytest.mark.parametrize("rows", [1, 8191, 8192, 8193])
def test_as_many_rows_are_made_as_were_asked_for(rows: int) -> None:
    assert _make(rows=rows).count(b"\n") == rows + 1
    assert _make(FileFormat.JSON_LINES, rows=rows).count(b"\n") == rows


@pytest.mark.parametrize("size", [4096, 300_000, 1_000_000])
@pytest.mark.parametrize("file_format", list(FileFormat))
def test_as_many_rows_are_made_as_fit_into_the_size(size: int, file_format: FileFormat) -> None:
    content = _make(file_format, bytes=size)
    assert size - 200 < len(content) <= size
    assert content.endswith(b"\n")
    assert _make(file_format, rows=30_000).startswith(content)


def test_values_are_what_their_columns_say() -> None:
    names, *rows = csv.reader(io.StringIO(_make(rows=2000, columns=_ALL).decode()), strict=True)
    assert names == ["integer_1", "decimal_2", "word_3", "date_4", "boolean_5", "phrase_6"]
    for row in rows:
        for kind, text in zip(_ALL, row, strict=True):
            assert _is_valid(kind.value, text), (kind, text)
    # Small numbers are among them: their leading zeros are left out.
    assert min(len(row[0]) for row in rows) < 5
    assert min(len(row[1]) for row in rows) < 6


def test_records_of_json_lines_hold_the_same_values() -> None:
    rows = list(csv.reader(io.StringIO(_make(rows=500, columns=_ALL, seed=3).decode())))
    lines = _make(FileFormat.JSON_LINES, rows=500, columns=_ALL, seed=3).splitlines()
    for names_and_values, line in zip((zip(rows[0], row, strict=True) for row in rows[1:]), lines, strict=True):
        record = json.loads(line, parse_int=str, parse_float=str)
        assert record == {name: json.loads(v) if v in ("true", "false") else v for name, v in names_and_values}


@pytest.mark.parametrize(("missing", "low", "high"), [(0, 0, 0), (0.25, 450, 550), (1, 2000, 2000)])
def test_a_share_of_the_values_is_missing(missing: float, low: int, high: int) -> None:
    rows = list(csv.reader(io.StringIO(_make(rows=2000, columns=_ALL, missing=missing).decode())))[1:]
    records = [
        json.loads(line) for line in _make(FileFormat.JSON_LINES, rows=2000, columns=_ALL, missing=missing).splitlines()
    ]
    for number, name in enumerate(records[0]):
        assert low <= sum(row[number] == "" for row in rows) <= high
        assert sum(record[name] is None for record in records) == sum(row[number] == "" for row in rows)


def test_the_fractions_tell_how_far_the_file_is() -> None:
    for wanted in (GeneratedFile(rows=30_000), GeneratedFile(bytes=1_000_000)):
        fractions = [part.fraction for part in generate(wanted, FileFormat.CSV)]
        assert fractions == sorted(fractions)
        assert len(fractions) > 3
        assert 0 < fractions[0] < 0.5
        assert fractions[-1] == 1


def test_t47_what_could_become_too_large_is_refused_before_anything_is_made() -> None:
    assert next(generate(GeneratedFile(rows=25_000_000), FileFormat.CSV)).text
    with pytest.raises(PermanentError) as refused:
        next(generate(GeneratedFile(rows=50_000_000), FileFormat.CSV))
    assert refused.value.code == "cost_too_high"
