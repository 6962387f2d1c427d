"""Pages of which a part follows from the code: written anew, or compared with what is there."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

_DOCS = Path(__file__).resolve().parent.parent / "docs"
BEGIN, END = "<!-- generated: begin -->", "<!-- generated: end -->"


def keep(name: str, make: Callable[[], str], *, about: str | None) -> None:
    """Run a tool that keeps the part between the marks in the page docs/NAME; with --check it writes nothing."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    check = parser.parse_args().check
    path = _DOCS / name
    page = path.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    made = f"{before}{BEGIN}\n{make()}\n{END}{after}"
    if not check:
        path.write_text(made, encoding="utf-8")
    elif made != page:
        sys.exit(f"docs/{name} is not what the code says, run `make docs`")
