"""What is found in CSV is what Python's `csv` finds, wherever blocks are cut; what is wrong is named by its line."""

import csv
import io
import re
import statistics
import sys
from fractions import Fraction
from itertools import accumulate
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execution_service.handlers.large_files.blocks import LINE_BYTES_MAX
from execution_service.handlers.large_files.csv_rows import sniff
from execution_service.handlers.large_files.csv_split import split
from execution_service.handlers.large_files.models import ColumnSummary, Delimiter, FileFormat, LargeFileResult
from execution_service.handlers.large_files.reading import summarise
from headrace.tasks import PermanentError

_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(Z|\.\d{3}|\.\d{3}Z|\.\d{6}|\+\d\d:\d\d)?)?)?", re.ASCII)


def _summarise(
    content: bytes,
    *,
    delimiter: Delimiter = Delimiter.COMMA,
    header: bool = True,
    block_bytes: int = 100_000,
    chunk_bytes: int = 100_000,
) -> LargeFileResult:
    stream = io.BytesIO(content)
    return summarise(
        lambda size: stream.read(min(size, chunk_bytes)),
        file_format=FileFormat.CSV,
        delimiter=delimiter,
        header=header,
        on_progress=lambda _bytes, _rows: None,
        block_bytes=block_bytes,
    )


def _errors(content: bytes, **options: int) -> list[tuple[int, str]]:
    result = _summarise(content, **options)  # type: ignore[arg-type]
    return [(error.line, error.code.value) for error in result.errors]


def _kind(text: str) -> str:
    if _NUMBER.fullmatch(text) and len(text) <= 32 and abs(float(text)) <= 1e140:
        return "integer" if text.lstrip("+-").isdigit() else "decimal"
    if text.lower() in ("true", "false"):
        return "boolean"
    return "date" if _DATE.fullmatch(text) else "text"


def _check_column(column: ColumnSummary, cells: list[str]) -> None:
    """Compare a column with what its cells say when each is looked at for itself."""
    present = [cell for cell in cells if cell]
    kinds = list(map(_kind, present))
    assert (column.present, column.missing) == (len(present), len(cells) - len(present))
    assert column.kinds.model_dump() == {kind: kinds.count(kind) for kind in column.kinds.model_dump()}
    assert (column.distinct.count, column.distinct.exact) == (len(set(present)), True)
    lengths = (column.lengths.min, column.lengths.max) if column.lengths else None
    assert lengths == ((min(map(len, present)), max(map(len, present))) if present else None)
    values = [float(cell) for cell, kind in zip(present, kinds, strict=True) if kind in ("integer", "decimal")]
    if not values:
        assert column.numbers is None
        return
    assert column.numbers is not None
    exact = list(map(Fraction, values))
    assert (column.numbers.count, column.numbers.min, column.numbers.max) == (len(values), min(values), max(values))
    size = max(map(abs, exact))
    assert abs(Fraction(column.numbers.mean) - statistics.mean(exact)) <= size * Fraction(1, 10**12)
    if len(values) > 1:
        assert column.numbers.variance is not None
        error = abs(Fraction(column.numbers.variance) - statistics.variance(exact))
        # Squares below the smallest double are lost.
        assert error <= size * size * Fraction(1, 10**12) + Fraction(sys.float_info.min)


_CELLS = st.one_of(
    st.text("ab,;\t|\"'\n ä€𝄞=()", max_size=12),
    st.integers(-(10**20), 10**20).map(str),
    st.floats(-1e12, 1e12).map(repr),
    st.decimals(-1000, 1000, places=2).map(str),
    st.sampled_from(["", "true", "FALSE", "2026-11-24", "2026-11-24T10:00:00Z", "2026-11-24 10:00", "1e5", "=cmd()"]),
    st.text("0123456789abcdef", min_size=20, max_size=80),
)


@st.composite
def _tables(draw: st.DrawFn) -> list[list[str]]:
    width = draw(st.integers(1, 4))
    rows = draw(st.lists(st.lists(_CELLS, min_size=width, max_size=width), max_size=20))
    return [[f"column {number}" for number in range(width)], *rows]


@given(
    _tables(),
    st.sampled_from([Delimiter.COMMA, Delimiter.SEMICOLON, Delimiter.TAB, Delimiter.BAR]),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.integers(1, 300),
)
def test_a_table_is_described_as_by_looking_at_each_of_its_cells(
    table: list[list[str]], delimiter: Delimiter, end: str, quoting: Literal[0, 1], block_bytes: int
) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows(table)
    # With some line ends the writer leaves others without quotes: what it has written is what the reader says.
    names, *rows = csv.reader(io.StringIO(text.getvalue(), newline=""), delimiter=delimiter)
    good = [row for row in rows if len(row) == len(names)]
    content = text.getvalue().encode()
    result = _summarise(content, delimiter=delimiter, block_bytes=block_bytes)
    assert (result.bytes, result.rows) == (len(content), len(good))
    assert result.error_count == sum(len(row) not in (0, len(names)) for row in rows)
    assert [column.name for column in result.columns] == names
    for number, column in enumerate(result.columns):
        _check_column(column, [row[number] for row in good])


_JUNK = st.lists(
    st.sampled_from(
        [b"a", b"1", b".5", b",", b",", b"\n", b"\n", b"\r\n", b'"', b'"', b'""', b"\r", b"\xe4", "ä".encode(), b"\0"]
    )
).map(b"".join)


@given(_JUNK)
def test_a_block_that_is_split_at_once_is_split_as_csv_does(data: bytes) -> None:
    records = split(data, ",")
    if records is None:
        return
    text = records.buffer.tobytes()
    values = [
        text[start : start + length].decode("utf-8", "surrogateescape")
        for start, length in zip(records.starts.tolist(), records.lengths.tolist(), strict=True)
    ]
    ends = list(accumulate(records.counts.tolist()))
    rows = [values[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    found = [
        ([] if blank else row, line)
        for row, blank, line in zip(rows, records.blank.tolist(), records.lines.tolist(), strict=True)
    ]
    reader = csv.reader(io.StringIO(data.decode("utf-8", "surrogateescape"), newline=""), strict=True)
    # The lines that csv has read before a record say where that record begins.
    lines = iter(lambda: reader.line_num, None)
    assert found == ([(row, line) for line, row in zip(lines, reader, strict=False)] or [([], 0)])


def test_ordinary_quotes_are_split_at_once() -> None:
    records = split(b'a,"b, ""c"" d"\r\n"",""""\r\n\r\n"e\nf",g\r\n"",h', ",")
    assert records is not None
    assert records.counts.tolist() == [2, 2, 1, 2, 2]
    assert records.lines.tolist() == [0, 1, 2, 3, 5]
    assert records.blank.tolist() == [False, False, True, False, False]


@pytest.mark.parametrize("data", [b'"a\n', b'a"b"\n', b'"a"b\n', b"a\rb\n", b'" "" \n'])
def test_what_takes_a_closer_look_is_not_split_at_once(data: bytes) -> None:
    assert split(data, ",") is None


def _without_rounding(result: LargeFileResult) -> tuple[dict[str, object], list[float]]:
    """Return what of a result is exact, and what rounding may change."""
    exact, rounded = result.model_dump(), []
    for column in exact["columns"]:
        numbers = column["numbers"] or {}
        rounded += [numbers.pop(name) or 0.0 for name in ("mean", "variance") if name in numbers]
    return exact, rounded


@given(_JUNK, st.integers(1, 40), st.booleans())
def test_where_blocks_are_cut_makes_no_difference(body: bytes, block_bytes: int, header: bool) -> None:
    content = b"x,y\n" + body
    whole = _summarise(content, header=header)
    exact, rounded = _without_rounding(_summarise(content, header=header, block_bytes=block_bytes))
    whole_exact, whole_rounded = _without_rounding(whole)
    assert exact == whole_exact
    assert rounded == pytest.approx(whole_rounded, rel=1e-12)


@given(_JUNK, st.integers(1, 40))
def test_where_the_stream_is_cut_makes_no_difference_at_all(body: bytes, chunk_bytes: int) -> None:
    content = b"x,y\n" + body
    whole = _summarise(content, delimiter=Delimiter.AUTO, block_bytes=20)
    assert _summarise(content, delimiter=Delimiter.AUTO, block_bytes=20, chunk_bytes=chunk_bytes) == whole


def test_errors_are_named_by_line_and_only_their_records_are_left_out() -> None:
    content = b'a,b\n1,2\n3\n"x\ny",4\n5,6,7\n"8"9,0\n\n\xff,1\n\0,2\n10,11\n"open,12\n'
    result = _summarise(content)
    assert [(error.line, error.code.value) for error in result.errors] == [
        (3, "wrong_column_count"),
        (6, "wrong_column_count"),
        (7, "bad_quotes"),
        (9, "invalid_utf8"),
        (10, "nul_character"),
        (12, "bad_quotes"),
    ]
    assert (result.rows, result.error_count, result.lines) == (3, 6, 12)
    assert result.columns[0].distinct.count == 3


def test_the_first_hundred_errors_are_listed_and_all_are_counted() -> None:
    result = _summarise(b"a,b\n1,2\n" + b"3\n" * 1000, block_bytes=200)
    assert (result.rows, result.error_count, len(result.errors)) == (1, 1000, 100)
    assert [error.line for error in result.errors] == list(range(3, 103))
    assert result.errors[0].message == "1 instead of 2 values"


@pytest.mark.parametrize("block_bytes", [50_000, 900_000])
def test_t57_a_line_of_ten_megabytes_is_an_error_of_that_line(block_bytes: int) -> None:
    content = b"a,b\n1,2\n" + b"x" * 10_000_000 + b",3\n4,5\n"
    assert _errors(content, block_bytes=block_bytes) == [(3, "line_too_long")]
    assert _summarise(content).rows == 2


def test_t57_a_quote_that_never_closes_takes_no_more_than_its_share_of_the_file() -> None:
    lines = b"1,2\n" * 1000
    content = b'a,b\n"open,1\n' + lines * 300 + b'3,4\n"open again,1\n'
    assert len(content) > LINE_BYTES_MAX
    result = _summarise(content)
    assert [(error.line, error.code.value) for error in result.errors] == [
        (2, "record_too_long"),
        (300_004, "bad_quotes"),
    ]
    assert result.rows == 300_001 - (LINE_BYTES_MAX - len(b'"open,1\n')) // 4


def test_t57_a_long_line_in_a_quoted_record_is_an_error_of_the_record() -> None:
    content = b'a,b\n"1\n' + b"x" * (LINE_BYTES_MAX + 1) + b'\n2",3\n4,5\n'
    assert _errors(content) == [(2, "record_too_long")]
    # What is left of the record looks like one: a quote inside of a value is a character.
    assert _summarise(content).columns[0].distinct.count == 2


@pytest.mark.parametrize("width", [1000, 1001])
def test_t57_a_million_columns_are_too_many(width: int) -> None:
    assert _errors(b",".join([b"x"] * 5) + b"\n" + b"," * 500_000 + b"\n") == [(2, "wrong_column_count")]
    content = b",".join([b"x"] * width) + b"\n" + b",".join([b"1"] * width)
    if width == 1000:
        assert len(_summarise(content).columns) == 1000
        return
    for header in (content, b"," * 1_000_000):
        with pytest.raises(PermanentError) as refused:
            _summarise(header)
        assert refused.value.code == "too_many_columns"


@pytest.mark.parametrize(
    "content",
    [
        b'"a"b,c\n',
        b"\xff,b\n",
        b"a\0,b\n",
        b"a" * 201 + b",b\n",
        b"a" * (LINE_BYTES_MAX + 1) + b"\n1,2\n",
        b'"a\n' * (LINE_BYTES_MAX // 3 + 1),
        b'"never closed',
    ],
    ids=["quotes", "not UTF-8", "NUL", "long name", "long line", "long record", "open"],
)
def test_a_header_that_cannot_be_read_ends_the_task(content: bytes) -> None:
    with pytest.raises(PermanentError) as refused:
        _summarise(content)
    assert refused.value.code == "invalid_header"


def test_t57_formulas_are_text_and_nothing_is_made_of_them() -> None:
    column = _summarise(b"a,b\n=cmd(),1\n+SUM(A1),2\n@x,3\n-1+1,4\n").columns[0]
    assert (column.kinds.text, column.type.value, column.numbers) == (4, "text", None)


def test_t57_a_byte_order_mark_is_no_part_of_the_first_name() -> None:
    assert [column.name for column in _summarise(b"\xef\xbb\xbfa,b\n1,2\n").columns] == ["a", "b"]


def test_a_file_without_a_header_has_numbered_columns() -> None:
    result = _summarise(b"1,x\n2,y\n", header=False)
    assert [(column.name, column.present) for column in result.columns] == [("column_1", 2), ("column_2", 2)]
    result = _summarise(b"a,,c\n1,2,3\n")
    assert [column.name for column in result.columns] == ["a", "column_2", "c"]


@pytest.mark.parametrize("content", [b"", b"\n\r\n\n"])
def test_a_file_without_a_record_has_no_columns(content: bytes) -> None:
    result = _summarise(content)
    assert (result.rows, result.columns, result.error_count) == (0, [], 0)


def test_a_header_alone_is_a_table_without_rows() -> None:
    result = _summarise(b"a,b")
    assert result.rows == 0
    assert [(column.type.value, column.present, column.missing, column.lengths) for column in result.columns] == [
        ("empty", 0, 0, None)
    ] * 2


def test_blank_lines_are_no_rows_but_an_empty_value_in_quotes_is_one() -> None:
    result = _summarise(b'a\n1\n\n\r\n""\n2\n')
    assert (result.rows, result.error_count, result.lines) == (3, 0, 6)
    assert (result.columns[0].present, result.columns[0].missing) == (2, 1)


@pytest.mark.parametrize(
    ("content", "delimiter"),
    [
        ("a,b\n1,2\n", ","),
        ("a;b\n1,5;2,5\n", ";"),
        ("a\tb,c\n1\t2\n", "\t"),
        ("a|b|c\n1|2|3\n", "|"),
        ('"a;b","c"\n1,2\n', ","),
        ("a,b;c\n1,2;3\nx,y;z\n", ","),
        ("a;b\n1;2,3\n4;5,6\n", ";"),
        ("\n\na;b\n1;2\n", ";"),
        ("single\nvalues\n", ","),
        ("", ","),
    ],
)
def test_the_delimiter_is_found_by_the_first_lines(content: str, delimiter: str) -> None:
    assert sniff(content.splitlines(keepends=True)) == delimiter
    assert _summarise(content.encode(), delimiter=Delimiter.AUTO).delimiter == (delimiter if content else None)


def test_the_limit_of_python_csv_is_left_as_it_was() -> None:
    before = csv.field_size_limit()
    result = _summarise(b'a,b\n"' + b"x" * 200_000 + b'\ny",1\n')
    assert result.columns[0].lengths is not None
    assert result.columns[0].lengths.max == 200_002
    assert csv.field_size_limit() == before
