"""`python -m headrace.cli` is the `headrace` command, for where the script is not on the PATH."""

from headrace.cli import app

app(prog_name="headrace")
