"""The `headrace` command. Each command is a module of its own that only imports what it needs when it runs."""

import typer

from headrace.cli import demo, ps, up

app = typer.Typer(
    name="headrace",
    help="A distributed task queue that loses nothing, shows everything live, is fast, and starts with one command.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("up")(up.up)
app.command("demo")(demo.demo)
app.command("ps")(ps.ps)
