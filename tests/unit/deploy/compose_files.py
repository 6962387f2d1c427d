"""docker-compose.yml and its overlays as Docker Compose reads them, and what the Dockerfile adds to each service."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
BASE = ROOT / "docker-compose.yml"
OVERLAYS = sorted(DEPLOY.glob("compose.*.yml"))

# What an overlay replaces as a whole, where other lists are added to.
_REPLACED = frozenset({"command", "entrypoint", "test"})
_SIZES = {"k": 2**10, "m": 2**20, "g": 2**30}
_VARIABLE = re.compile(r"\$\{([A-Z_]+)(?::-([^}]*)|:\?[^}]*)?\}")


@dataclass(frozen=True, slots=True)
class _Override:
    value: Any


@dataclass(frozen=True, slots=True)
class _Reset:
    """Takes away what the file before has said."""


class _Loader(yaml.SafeLoader):
    """Knows the two tags that Compose adds to YAML."""


def _override(loader: yaml.SafeLoader, node: yaml.Node) -> _Override:
    if isinstance(node, yaml.SequenceNode):
        return _Override(loader.construct_sequence(node, deep=True))
    assert isinstance(node, yaml.MappingNode)
    return _Override(loader.construct_mapping(node, deep=True))


_Loader.add_constructor("!override", _override)
_Loader.add_constructor("!reset", lambda loader, node: _Reset())


def load(*paths: Path) -> dict[str, Any]:
    """The files put together, each over the one before; variables are left as they are."""
    merged: Any = {}
    for path in paths:
        merged = _merged(merged, yaml.load(path.read_text(), _Loader))
    assert isinstance(merged, dict)
    return merged


def _merged(below: Any, above: Any, name: str = "") -> Any:
    if isinstance(above, _Override):
        return above.value
    if isinstance(below, dict) and isinstance(above, dict):
        keys = [key for key in {**below, **above} if not isinstance(above.get(key), _Reset)]
        return {key: _merged(below.get(key), above[key], key) if key in above else below[key] for key in keys}
    if isinstance(below, list) and isinstance(above, list) and name not in _REPLACED:
        return [*below, *(item for item in above if item not in below)]
    return above


def substituted(text: str) -> str:
    """A text with the defaults of its variables."""
    return _VARIABLE.sub(lambda match: match[2] or "", text)


def variables(path: Path) -> dict[str, str | None]:
    """The variables that a file takes from the environment of `docker compose`, and their defaults; None: required."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    return {match[1]: match[2] for line in lines for match in _VARIABLE.finditer(line)}


def size(text: str) -> int:
    """The bytes of `64m`, `1G` or `2gb`."""
    number, unit = re.findall(r"^(\d+)([kmg])b?$", text.lower())[0]
    return int(number) * _SIZES[unit]


def seconds(text: str) -> float:
    """The seconds of `20s` or `2m`."""
    return float(text[:-1]) * {"s": 1, "m": 60}[text[-1]]


def networks(service: Mapping[str, Any]) -> set[str]:
    return set(service["networks"])


def secrets(service: Mapping[str, Any]) -> set[str]:
    return {secret["source"] if isinstance(secret, dict) else secret for secret in service.get("secrets", ())}


@dataclass(slots=True)
class Stage:
    """A stage of the Dockerfile, with what it has from the stages below."""

    user: str | None = None
    health_check: str | None = None
    environment: dict[str, str] = field(default_factory=dict)


def stages() -> dict[str, Stage]:
    """The stages of deploy/docker/Dockerfile by name."""
    found: dict[str, Stage] = {}
    current = Stage()
    for keyword, rest in _instructions((DEPLOY / "docker" / "Dockerfile").read_text()):
        if keyword == "FROM":
            parent, _, name = rest.split()
            below = found.get(parent, Stage())
            current = found[name] = Stage(below.user, below.health_check, dict(below.environment))
        elif keyword == "USER":
            current.user = rest
        elif keyword == "HEALTHCHECK":
            current.health_check = None if rest == "NONE" else rest
        elif keyword == "ENV":
            current.environment.update(
                (name, value) for name, _, value in (pair.partition("=") for pair in rest.split())
            )
    return found


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    joined = re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", text))
    for line in joined.splitlines():
        keyword, _, rest = line.strip().partition(" ")
        if keyword:
            yield keyword, rest.strip()
