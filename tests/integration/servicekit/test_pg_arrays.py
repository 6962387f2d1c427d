"""Arrays in binary format, as PostgreSQL reads them."""

import struct
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from servicekit.pg_arrays import (
    PgArray,
    bool_array,
    bytea_array,
    int2_array,
    int4_array,
    int8_array,
    text_array,
    timestamptz_array,
    timestamptz_array_of_micros,
)

NOW = datetime(2026, 3, 4, 5, 6, 7, 891011, tzinfo=UTC)
ARRAYS: list[tuple[Callable[..., PgArray], str, Sequence[Any]]] = [
    (int2_array, "smallint[]", [-(2**15), -1, 0, 2**15 - 1]),
    (int4_array, "integer[]", [-(2**31), -1, 0, 1, 2**31 - 1]),
    (int8_array, "bigint[]", [-(2**63), -1, 0, 1, 2**40 + 3, 2**63 - 1]),
    (bool_array, "boolean[]", [True, False, True]),
    (bytea_array, "bytea[]", [b"", b"\x00\xff", b"x" * 9000]),
    (text_array, "text[]", ["", "word_count", 'quote " comma , brace }', "NULL", "naïve ☃"]),
    (text_array, "text[]", ["cpu", "io"] * 20),
    (
        timestamptz_array,
        "timestamp with time zone[]",
        [NOW, datetime(1969, 1, 1, tzinfo=UTC), datetime.max.replace(tzinfo=UTC)],
    ),
]


@pytest.mark.parametrize(("make", "type_name", "values"), ARRAYS)
async def test_an_array_arrives_with_its_type_and_values(
    postgres_dsn: str, make: Callable[..., PgArray], type_name: str, values: Sequence[Any]
) -> None:
    variants: list[list[Any]] = [list(values), [None, *values, None], [None], []]
    async with await psycopg.AsyncConnection.connect(postgres_dsn, options="-c timezone=UTC") as conn:
        for variant in variants:
            cursor = await conn.execute(
                "SELECT pg_typeof(%(array)s)::text, unnest(%(array)s) AS item", {"array": make(variant)}, binary=True
            )
            assert await cursor.fetchall() == [(type_name, item) for item in variant]


async def test_timestamps_may_be_given_in_microseconds(postgres_dsn: str) -> None:
    micros = (NOW - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    async with await psycopg.AsyncConnection.connect(postgres_dsn, options="-c timezone=UTC") as conn:
        cursor = await conn.execute("SELECT %s", [timestamptz_array_of_micros([micros, None])])
        assert await cursor.fetchone() == ([NOW, None],)


async def test_a_text_that_postgresql_cannot_hold_is_an_error_in_the_data(postgres_dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(postgres_dsn) as conn:
        with pytest.raises(psycopg.errors.CharacterNotInRepertoire):
            await conn.execute("SELECT %s", [text_array(["a\x00b"])])


@pytest.mark.parametrize("value", [2**31, "1", 1.5])
def test_a_value_of_the_wrong_kind_is_refused_here(value: Any) -> None:
    with pytest.raises(struct.error):
        int4_array([value])
