"""`headrace demo`: a cluster of its own, real tasks, their results, and where the time went."""

import asyncio
import shutil
import signal
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated

import typer

from headrace.local.errors import LocalClusterError

INTERRUPTED = 130


def demo(
    *,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the gateway; 0 takes a free one.")] = 0,
    keep: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep data, logs and outputs in this new or empty directory.")
    ] = None,
) -> None:
    """Start a fresh cluster, run real tasks of every built-in type, show them live, stop."""
    # Loaded here, so that the other commands start without what only the demo needs.
    from headrace.demo.display import open_console
    from headrace.demo.errors import DemoError
    from headrace.demo.run import run_demo

    if keep is not None and keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        raise typer.BadParameter("It is not an empty directory.", param_hint="--keep")
    folder = keep.resolve() if keep is not None else Path(tempfile.mkdtemp(prefix="headrace-demo-"))
    try:
        asyncio.run(_until_told_to_stop(run_demo(folder, port=port, console=open_console())))
    except (DemoError, LocalClusterError) as error:
        typer.echo(f"Error: {error}\nEverything was stopped. Data and logs are in {folder / 'cluster'}.", err=True)
        raise typer.Exit(1) from error
    except (KeyboardInterrupt, asyncio.CancelledError):
        typer.echo("Interrupted. Everything was stopped.", err=True)
        _tidy_up(folder, keep=keep)
        raise typer.Exit(INTERRUPTED) from None
    _tidy_up(folder, keep=keep)


async def _until_told_to_stop(work: Coroutine[None, None, None]) -> None:
    """Let SIGTERM and SIGHUP end the demo in order, as Ctrl-C does anyway."""
    this_task = asyncio.current_task()
    assert this_task is not None, "a coroutine runs in a task"
    for signal_number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(signal_number, this_task.cancel)
    await work


def _tidy_up(folder: Path, *, keep: Path | None) -> None:
    if keep is None:
        shutil.rmtree(folder)
        return
    typer.echo(f"Kept in {keep}: outputs in outputs/, data and logs in cluster/.")
    typer.echo(f"`headrace up --data-dir {keep / 'cluster'}` starts that cluster again.")
