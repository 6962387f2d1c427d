"""What the demo prints at its end."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from headrace.demo.burst import TASK_TYPE, Burst
from headrace.demo.cases import Case
from headrace.demo.journey import SEEN, STAGES, Journey


def show_results(console: Console, results: Sequence[tuple[Case, int, Sequence[str]]]) -> None:
    for case, task_id, findings in results:
        console.print(f"\n[bold]{case.type}[/bold], task {task_id}: {case.about}", highlight=False)
        for finding in findings:
            console.print(f"    {finding}", markup=False, highlight=False)


def show_burst(console: Console, burst: Burst) -> None:
    console.print(f"\n[bold]{TASK_TYPE}[/bold], {burst.tasks:,} more of them in one request", highlight=False)
    rate = burst.tasks / burst.seconds
    console.print(
        f"    all completed within {burst.seconds:.2f} s, from the first one accepted to the last result stored: "
        f"{rate:,.0f} tasks/s\n    {burst.checked} results checked\n",
        highlight=False,
    )


def journey_table(journeys: Sequence[tuple[str, Journey]]) -> Table:
    """One row per stage, one column per task, in milliseconds; narrow enough for 80 characters."""
    table = Table(title="Where the time went, in ms", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("until it was")
    for name, _ in journeys:
        table.add_column(name, justify="right", no_wrap=True)
    for stage in (*STAGES, SEEN):
        table.add_row(stage, *(_milliseconds(journey.stages[stage]) for _, journey in journeys))
    table.add_section()
    table.add_row("in all", *(_milliseconds(journey.total) for _, journey in journeys))
    return table


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.1f}"
