"""What the README tells people to type exists, and what it shows is valid."""

import json
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest
import typer.main
from starlette.routing import Match, Router

from execution_service.handlers import BUILTIN_MODULES
from execution_service.settings import ExecutionSettings
from gateway import docs, event_routes, info_routes, task_routes, worker_routes
from gateway.bodies import TaskBody, decode_task, decode_worker
from gateway.idempotency import idempotency_key
from gateway.options import option_errors
from headrace.cli import app
from headrace.tasks import TaskContext, TaskDefinition, definition_of, load_registry
from servicekit.live.websocket import socket_routes

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
ROUTERS = (
    task_routes.router,
    worker_routes.router,
    event_routes.router,
    info_routes.router,
    Router(socket_routes()),
    docs.router,
)


def code(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def shell_commands() -> list[list[str]]:
    lines = "".join(code("sh")).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def curl_commands() -> list[list[str]]:
    return [words for words in shell_commands() if words[0] == "curl"]


def option(words: list[str], name: str) -> str | None:
    return words[words.index(name) + 1] if name in words else None


def headers(words: list[str]) -> Mapping[str, str]:
    found = (words[place + 1] for place, word in enumerate(words) if word == "-H")
    return {name.lower(): value for name, _, value in (header.partition(": ") for header in found)}


def bodies() -> list[TaskBody]:
    return [decode_task(body.encode()) for words in curl_commands() if (body := option(words, "-d")) and is_task(words)]


def is_task(words: list[str]) -> bool:
    return any(word.endswith("/api/tasks") for word in words)


@pytest.fixture(scope="module")
def invoice() -> TaskDefinition:
    """The task type that the README shows, from its very text."""
    source = next(block for block in code("python") if "@task(" in block)
    module = ModuleType("readme_tasks")
    sys.modules[module.__name__] = module  # where pydantic looks annotations up
    exec(compile(source, "README.md", "exec"), vars(module))
    return definition_of(module.invoice)


@pytest.mark.parametrize("text", [README, CONTRIBUTING], ids=["README", "CONTRIBUTING"])
def test_every_make_target_exists(text: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE))
    assert named
    assert named <= targets


def test_every_command_and_option_of_headrace_exists() -> None:
    command = typer.main.get_command(app)
    commands = getattr(command, "commands")  # noqa: B009 - a group, which typer's types do not say
    used = re.findall(r"(?:bin/|`)headrace ([a-z]+)((?: --[a-z-]+)*)", README)
    assert {"up", "ps"} <= {name for name, _ in used}
    for name, options in used:
        known = {text for parameter in commands[name].params for text in parameter.opts}
        assert set(options.split()) <= known


def test_every_address_is_answered() -> None:
    urls = [word for words in curl_commands() for word in words if word.startswith("http://")]
    assert len(urls) > 5
    for url in urls:
        path = url.removeprefix("http://127.0.0.1:8080").partition("?")[0]
        assert is_route("http", path), url
    for path in re.findall(r"ws://127\.0\.0\.1:8080(\S+)", README):
        assert is_route("websocket", path), path


def is_route(kind: str, path: str) -> bool:
    scope = {"type": kind, "path": path, "method": "GET"}
    return any(route.matches(scope)[0] is not Match.NONE for router in ROUTERS for route in router.routes)


def test_every_request_is_valid(invoice: TaskDefinition) -> None:
    types = {definition.name: definition for definition in (*load_registry(BUILTIN_MODULES).definitions, invoice)}
    assert {body.type for body in bodies()} == {"word_count", "invoice"}
    for body in bodies():
        types[body.type].decode(bytes(body.data))
        assert option_errors(body, "") == []
    for words in curl_commands():
        if (wish := option(words, "-d")) and not is_task(words):
            assert decode_worker(wish.encode()).pool == "cpu"
        if option(words, "-d"):
            assert headers(words)["content-type"] == "application/json"
        if key := headers(words).get("idempotency-key"):
            assert idempotency_key([key]) == key


def test_every_json_example_is_json() -> None:
    assert [json.loads(block) for block in code("json")] == [{"task_id": 1}]


def test_the_task_type_runs_its_example(invoice: TaskDefinition) -> None:
    data = invoice.decode(json.dumps(invoice.examples[0]).encode())
    assert json.loads(invoice.encode(invoice.run(data, TaskContext()))) == {"total": 29.5}


def test_the_program_for_grpc_is_python_and_its_imports_exist() -> None:
    source = next(block for block in code("python") if "import grpc" in block)
    compile(source, "README.md", "exec")
    imports = "\n".join(line for line in source.splitlines() if re.match(r"(from|import) ", line))
    exec(compile(imports, "README.md", "exec"), {})


def test_the_settings_exist() -> None:
    named = set(re.findall(r"HEADRACE_[A-Z_]+", README))
    assert "HEADRACE_TASK_MODULES" in named
    assert {name.removeprefix("HEADRACE_").lower() for name in named} <= ExecutionSettings.model_fields.keys()
    for name in ("worker_tasks_max", "worker_memory_max"):
        default: int = ExecutionSettings.model_fields[name].default
        assert re.search(rf"`HEADRACE_{name.upper()}` [A-Za-z]+ \({default:,}\)", README)


def test_the_built_in_task_types_are_named() -> None:
    for definition in load_registry(BUILTIN_MODULES).definitions:
        assert f"`{definition.name}`" in README


@pytest.mark.parametrize("text", [README, CONTRIBUTING], ids=["README", "CONTRIBUTING"])
def test_every_link_within_the_repository_leads_somewhere(text: str) -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
