"""The query loader, and that each `queries.sql` of the project can be read by it."""

import sys
from pathlib import Path

import pytest

from servicekit.queries import Queries, load_queries


def test_queries_are_found_by_name_without_their_comments() -> None:
    queries = Queries(
        "-- 100% prose\n\n-- name: one\n-- why\nSELECT 1\n  -- why not\n WHERE true;\n\n--name:two_2\nSELECT 2;\n"
    )
    assert dict(queries) == {"one": b"SELECT 1\n WHERE true;", "two_2": b"SELECT 2;"}
    assert len(queries) == 2


def test_an_unknown_name_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        Queries("")["missing"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("-- name: a\nSELECT 1\n-- name: a\nSELECT 2", "two queries are named a"),
        ("-- name: a\n-- nothing", "no statement"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Queries(text)


def test_queries_are_read_from_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "with_queries"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "queries.sql").write_text("-- name: a\nSELECT 'ü'")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "with_queries", raising=False)
    assert load_queries("with_queries")["a"] == "SELECT 'ü'".encode()


def test_a_percent_sign_outside_of_parameters_is_not_in_our_queries() -> None:
    for name, query in {**load_queries("result_store"), **load_queries("servicekit", "migrations.sql")}.items():
        assert query.count(b"%") == query.count(b"%("), name
