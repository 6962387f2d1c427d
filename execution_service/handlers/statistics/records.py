"""The description of records: each column of numbers, in each group."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from execution_service.handlers.statistics.models import ColumnStatistics, RecordStatistics
from execution_service.handlers.statistics.sample import describe
from headrace.tasks import PermanentError

# With every list in it full, the description of one column has 15 KB; all of them must fit into a result.
DESCRIPTIONS_MAX = 500

Scalar: TypeAlias = bool | int | float | str | None
Row: TypeAlias = Mapping[str, Scalar]


def describe_records(
    records: Sequence[Row], columns: Sequence[str] | None, group_by: str | None, quantiles: Sequence[float]
) -> RecordStatistics:
    """Return the description of each column in each group. Raises PermanentError for columns that have none."""
    names = list(columns) if columns is not None else numeric_columns(records, group_by)
    check_columns(records, names, group_by)
    groups = list(group(records, group_by))
    if len(groups) * len(names) > DESCRIPTIONS_MAX:
        raise PermanentError(
            "cost_too_high",
            f"{len(groups)} groups times {len(names)} columns make {len(groups) * len(names)} descriptions; "
            f"{DESCRIPTIONS_MAX} are the most.",
        )
    return RecordStatistics(
        records=len(records),
        groups=len(groups),
        columns=[
            ColumnStatistics(
                group=value,
                column=name,
                records=len(members),
                statistics=describe([_number(row, name) for row in members], quantiles),
            )
            for value, members in groups
            for name in names
        ],
    )


def numeric_columns(records: Sequence[Row], group_by: str | None) -> list[str]:
    """Return the columns that hold numbers and nothing else, in the order in which they first occur.

    Raises PermanentError `not_numeric` if there are none.
    """
    # Whether all values so far are numbers; a column of which all values are missing never comes in here.
    numeric: dict[str, bool] = {}
    for row in records:
        for name, value in row.items():
            if value is not None and name != group_by:
                numeric[name] = numeric.get(name, True) and _is_number(value)
    names = [name for name, is_numeric in numeric.items() if is_numeric]
    if not names:
        raise PermanentError("not_numeric", "No column of the records holds numbers and nothing else.")
    return names


def check_columns(records: Sequence[Row], names: Sequence[str], group_by: str | None) -> None:
    """Raise PermanentError for a column that no record has (`unknown_column`), or that is more than numbers."""
    for name in (*names, *([group_by] if group_by is not None else [])):
        if not any(name in row for row in records):
            raise PermanentError("unknown_column", f"No record has the column {name!r}.")
    for name in names:
        for index, row in enumerate(records):
            value = row.get(name)
            if value is not None and not _is_number(value):
                raise PermanentError("not_numeric", f"/records/{index}: the column {name!r} is not a number there.")


def group(records: Sequence[Row], group_by: str | None) -> Iterable[tuple[Scalar, list[Row]]]:
    """Return the groups in the order in which they first occur: the value of each, and its records."""
    if group_by is None:
        return [(None, list(records))]
    # The number 1 and the truth value are equal in Python, and one group in no reader's mind.
    groups: dict[tuple[bool, Scalar], tuple[Scalar, list[Row]]] = {}
    for row in records:
        value = row.get(group_by)
        groups.setdefault((isinstance(value, bool), value), (value, []))[1].append(row)
    return groups.values()


def _is_number(value: Scalar) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(row: Row, name: str) -> float | None:
    value = row.get(name)
    return None if value is None else float(value)
