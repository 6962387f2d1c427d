"""Results about files."""

import hashlib
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from headrace.demo.checks.requirements import require


def backup_findings(result: Mapping[str, Any], folder: Sequence[tuple[str, str]]) -> list[str]:
    require(result["verified"] is True, "simulate_backup could not verify its archive")
    sums = {name: hashlib.sha256(content.encode()).hexdigest() for name, content in folder}
    archived = {file["name"]: file["sha256"] for file in result["files"]}
    require(archived == sums, "simulate_backup archived other files than it was given")
    total, packed = result["total_bytes"], result["archive_bytes"]
    require(total == sum(len(content.encode()) for _, content in folder), f"simulate_backup counted {total} bytes")
    return [
        f"{len(archived)} files, {total:,} bytes, archived in {packed:,} bytes and verified by reading them back",
        f"SHA-256 of the archive: {result['archive_sha256']}",
    ]


def ledger_findings(result: Mapping[str, Any], weights: Sequence[float]) -> list[str]:
    """The ledger has one row for each sack, and one line that is not as it should be."""
    columns = {column["name"]: column for column in result["columns"]}
    numbers = columns["kg"]["numbers"]
    require(result["rows"] == len(weights), f"large_file_processing found {result['rows']} rows of {len(weights)}")
    require(numbers["count"] == len(weights), "large_file_processing did not take every weight for a number")
    mean = statistics.fmean(weights)
    require(math.isclose(numbers["mean"], mean, rel_tol=1e-9), f"large_file_processing says mean = {numbers['mean']}")
    require(columns["flour"]["distinct"]["count"] == 3, "large_file_processing did not find three kinds of flour")
    require(result["error_count"] == 1, f"large_file_processing found {result['error_count']} bad lines, not one")
    bad = result["errors"][0]
    size = f"{len(columns)} columns in {result['bytes']:,} bytes"
    return [
        f"{result['rows']:,} rows of {size}, {numbers['mean']:,.3f} kg a sack",
        f"line {bad['line']} is bad: {bad['message']}",
    ]
