"""Generate the Python stubs under headrace/v1 from protos/, or compare the committed ones with fresh ones."""

import argparse
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path("headrace/v1")
STUB_PLUGINS = ("protoc-gen-mypy", "protoc-gen-mypy_grpc")


def generate(target: Path) -> None:
    """Write `*_pb2.py`, `*_pb2_grpc.py` and their stubs below `target`; exit on an error of protoc."""
    sources = sorted(str(path.relative_to(ROOT / "protos")) for path in (ROOT / "protos").rglob("*.proto"))
    includes = [f"-I{ROOT / 'protos'}", f"-I{files('grpc_tools') / '_proto'}"]
    outputs = [f"--{kind}_out={target}" for kind in ("python", "grpc_python")]
    stubs = [f"--mypy_out=quiet:{target}", f"--mypy_grpc_out=quiet:{target}"]
    plugins = [f"--plugin={name}={Path(sys.executable).parent / name}" for name in STUB_PLUGINS]
    if code := protoc.main(["protoc", *includes, *plugins, *outputs, *stubs, *sources]):
        sys.exit(code)


def differences(fresh: Path) -> list[str]:
    """Name the generated files that are missing, left over or other than the committed ones."""
    expected = {path.name: path.read_bytes() for path in (fresh / PACKAGE).iterdir()}
    committed = {path.name: path.read_bytes() for path in (ROOT / PACKAGE).glob("*_pb2*.py*")}
    return sorted(name for name in expected | committed if expected.get(name) != committed.get(name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    if not parser.parse_args().check:
        generate(ROOT)
        return
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        if changed := differences(Path(folder)):
            sys.exit(f"not what protos/ gives, run `make protos`: {', '.join(changed)}")


if __name__ == "__main__":
    main()
