"""JSON lines are described as by decoding each line; what is wrong is named by its line."""

import io
import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execution_service.handlers.large_files.models import FileFormat, LargeFileResult
from execution_service.handlers.large_files.reading import summarise


def _summarise(content: bytes, block_bytes: int = 100_000) -> LargeFileResult:
    return summarise(
        io.BytesIO(content).read,
        file_format=FileFormat.JSON_LINES,
        on_progress=lambda _bytes, _rows: None,
        block_bytes=block_bytes,
    )


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "date" if value == "2026-11-24" else "text"
    return {int: "integer", float: "decimal", list: "nested", dict: "nested"}[type(value)]


_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**15), 10**15),
    st.floats(-1e12, 1e12),
    st.text('ab"\\/\n\t\0 ä€𝄞', max_size=8),
    st.sampled_from(["12", "true", "null", "2026-11-24", "[1]"]),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.booleans(), max_size=1),
)
_RECORDS = st.lists(st.dictionaries(st.sampled_from(["a", "b", "é", 'q"']), _VALUES, max_size=4), max_size=12)


@given(_RECORDS, st.booleans(), st.sampled_from(["\n", "\r\n"]), st.integers(1, 200))
def test_records_are_described_as_by_decoding_each(
    records: list[dict[str, Any]], ascii_only: bool, end: str, block_bytes: int
) -> None:
    lines = [json.dumps(record, ensure_ascii=ascii_only) for record in records]
    result = _summarise(end.join(lines).encode(), block_bytes)
    assert (result.rows, result.error_count, result.lines) == (len(records), 0, len(records))
    assert [column.name for column in result.columns] == list(
        dict.fromkeys(name for record in records for name in record)
    )
    for column in result.columns:
        values = [record[column.name] for record in records if record.get(column.name) is not None]
        assert (column.present, column.missing) == (len(values), len(records) - len(values))
        kinds = Counter(map(_kind, values))
        assert {kind: count for kind, count in column.kinds.model_dump().items() if count} == kinds
        texts = [value if isinstance(value, str) else json.dumps(value, ensure_ascii=ascii_only) for value in values]
        assert column.distinct.count == len({(isinstance(v, str), text) for v, text in zip(values, texts, strict=True)})
        lengths = (column.lengths.min, column.lengths.max) if column.lengths else None
        assert lengths == ((min(map(len, texts)), max(map(len, texts))) if texts else None)
        numbers = [value for value in values if _kind(value) in ("integer", "decimal")]
        found = (column.numbers.count, column.numbers.min, column.numbers.max) if column.numbers else None
        assert found == ((len(numbers), min(numbers), max(numbers)) if numbers else None)


def test_text_that_looks_like_something_else_is_text() -> None:
    column = _summarise(b'{"a":"1"}\n{"a":1}\n{"a":"true"}\n{"a":true}\n{"a":"null"}\n{"a":null}\n').columns[0]
    assert (column.present, column.missing, column.distinct.count) == (5, 1, 5)
    assert (column.kinds.text, column.kinds.integer, column.kinds.boolean) == (3, 1, 1)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"{", "invalid_json"),
        (b"[1]", "invalid_json"),
        (b"1", "invalid_json"),
        (b"null", "invalid_json"),
        (b"{'a': 1}", "invalid_json"),
        (b'{"a": 1,}', "invalid_json"),
        (b'{"a": 1} {"a": 2}', "invalid_json"),
        (b'{"a": NaN}', "invalid_json"),
        (b'{"a": 01}', "invalid_json"),
        (b'{"a": "\\ud800"}', "invalid_json"),
        (b'{"a": "\1"}', "invalid_json"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "invalid_json"),
        (b'{"a": "\xff"}', "invalid_utf8"),
        (b'{"\xff": 1}', "invalid_utf8"),
        (b'{"a\\u0000": 1}', "invalid_name"),
        (b'{"' + b"n" * 201 + b'": 1}', "invalid_name"),
        (b"{" + b",".join(b'"%d":1' % number for number in range(1000)) + b"}", "too_many_columns"),
        (b'{"a": "' + b"x" * 1024 * 1024 + b'"}', "line_too_long"),
    ],
)
@pytest.mark.parametrize("block_bytes", [1000, 500_000])
def test_t57_a_line_that_is_wrong_is_left_out_by_itself(line: bytes, code: str, block_bytes: int) -> None:
    result = _summarise(b'{"a": 1}\n\n' + line + b'\n{"a": 2, "b": 3}', block_bytes)
    assert [(error.line, error.code.value) for error in result.errors] == [(3, code)]
    assert (result.rows, result.lines) == (2, 4)
    assert [(column.name, column.present) for column in result.columns] == [("a", 2), ("b", 1)]


def test_there_may_be_a_thousand_columns() -> None:
    lines = b"".join(b'{"%d":1}\n' % number for number in range(1001))
    result = _summarise(lines, 2000)
    assert len(result.columns) == 1000
    assert [(error.line, error.code.value) for error in result.errors] == [(1001, "too_many_columns")]
    assert {(column.present, column.missing) for column in result.columns} == {(1, 999)}


def test_a_byte_order_mark_is_no_part_of_the_first_line() -> None:
    assert _summarise(b'\xef\xbb\xbf{"a":1}').rows == 1


def test_numbers_beyond_what_is_summed_up_are_no_error() -> None:
    column = _summarise(b'{"a":1e999}\n{"a":' + b"9" * 40 + b'}\n{"a":2}').columns[0]
    assert column.numbers is not None
    assert (column.kinds.text, column.numbers.count, column.numbers.max) == (2, 1, 2.0)
