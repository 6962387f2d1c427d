"""`headrace ps`: the processes of a cluster."""

from pathlib import Path
from typing import Annotated

import typer

from headrace.local.cluster_file import is_alive, read_cluster_file

COLUMNS = ("ROLE", "ID", "PID", "STATE", "ADDRESS", "STREAMS", "LOG")


def ps(
    *, data_dir: Annotated[Path, typer.Option(help="The data directory of the cluster.")] = Path(".headrace")
) -> None:
    """Show the processes of the cluster in a data directory, and whether they live."""
    try:
        cluster = read_cluster_file(data_dir)
    except FileNotFoundError as error:
        typer.echo(f"Error: no cluster was ever started in {data_dir}. `headrace up` starts one.", err=True)
        raise typer.Exit(1) from error
    rows = [COLUMNS]
    for entry in cluster.processes:
        state = "alive" if is_alive(entry, data_dir) else "dead"
        rows.append((entry.role, entry.id, str(entry.pid), state, entry.address, entry.http_address or "-", entry.log))
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
