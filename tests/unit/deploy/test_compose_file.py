"""What must hold for every container, however the compose files are put together."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from execution_service.handlers.settings import HandlerSettings
from execution_service.settings import ExecutionSettings
from gateway.parameters import WAIT_SECONDS_MAX
from gateway.settings import GatewaySettings
from management_service.settings import ManagementSettings
from servicekit import health_check
from servicekit.http.server import PING_SECONDS, PONG_SECONDS
from servicekit.settings import ENV_PREFIX, ServiceSettings, load_settings, variable
from tests.unit.deploy.compose_files import (
    BASE,
    DEPLOY,
    OVERLAYS,
    ROOT,
    Stage,
    load,
    networks,
    seconds,
    secrets,
    size,
    stages,
    substituted,
)

SETTINGS: dict[str, type[ServiceSettings]] = {
    "gateway": GatewaySettings,
    "management": ManagementSettings,
    "execution": ExecutionSettings,
}
# All that somebody may put together, each overlay on its own.
FILES = [pytest.param((BASE,), id="base"), *(pytest.param((BASE, overlay), id=overlay.stem) for overlay in OVERLAYS)]
STAGES = stages()
DATABASES = {"tasks-db": "tasks", "results-db": "results"}
_SECRET_NAMES = re.compile(r"PASSWORD|TOKEN|SECRET|DSN|AUTH|KEY")
_PASSWORD_IN_URL = re.compile(r"://[^\s/:@\"'{}]*:(?!\.\.\.@)[^\s/@\"'{}$]+@")


@pytest.fixture(params=FILES)
def project(request: pytest.FixtureRequest) -> dict[str, Any]:
    return load(*request.param)


def services(project: Mapping[str, Any]) -> Mapping[str, dict[str, Any]]:
    found: Mapping[str, dict[str, Any]] = project["services"]
    assert found.keys() >= {*SETTINGS, "proxy", "consul", "redis"}
    return found


def elsewhere(project: Mapping[str, Any]) -> set[str]:
    """The databases that are none of the containers."""
    return DATABASES.keys() - services(project).keys()


def stage(service: Mapping[str, Any]) -> Stage:
    """What the Dockerfile says of a service, built here or before; nothing of images that others have made."""
    built_before = re.findall(r"-(gateway|management|execution):", service["image"])
    target = service["build"]["target"] if "build" in service else "".join(built_before)
    return STAGES[target] if target else Stage()


def environment(service: Mapping[str, Any]) -> dict[str, str]:
    """What a container gets, with the defaults of variables; what is only passed on is not there."""
    given = {name: value for name, value in service.get("environment", {}).items() if value is not None}
    return stage(service).environment | {name: substituted(str(value)) for name, value in given.items()}


def members(project: Mapping[str, Any], network: str) -> set[str]:
    return {name for name, service in services(project).items() if network in networks(service)}


def neighbours(project: Mapping[str, Any], name: str) -> set[str]:
    """The services that share a network with this one."""
    return set().union(*(members(project, network) for network in networks(services(project)[name]))) - {name}


def test_no_container_may_more_than_it_needs(project: dict[str, Any]) -> None:
    for name, service in services(project).items():
        assert service["cap_drop"] == ["ALL"], name
        assert "cap_add" not in service, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"] is True, name
        assert not {"privileged", "network_mode", "pid", "ipc", "devices"} & service.keys(), name
        assert not any("docker.sock" in str(volume) for volume in service.get("volumes", ())), name


def test_no_container_runs_as_root(project: dict[str, Any]) -> None:
    for name, service in services(project).items():
        user = str(service.get("user") or stage(service).user or "")
        assert re.fullmatch(r"[1-9]\d*(:[1-9]\d*)?", user), name


def test_every_container_has_bounds(project: dict[str, Any]) -> None:
    for name, service in services(project).items():
        limits = service["deploy"]["resources"]["limits"]
        assert float(limits["cpus"]) > 0, name
        assert size(limits["memory"]) > 0, name
        assert limits["pids"] > 0, name
        assert service["logging"]["driver"] == "json-file", name
        assert size(service["logging"]["options"]["max-size"]) > 0, name
        assert int(service["logging"]["options"]["max-file"]) > 1, name
        assert all("size=" in mount for mount in service["tmpfs"]), name


def test_what_a_container_writes_into_memory_leaves_room_for_its_processes(project: dict[str, Any]) -> None:
    for name, service in services(project).items():
        written = sum(size(re.findall(r"size=(\w+)", mount)[0]) for mount in service["tmpfs"])
        assert written < size(service["deploy"]["resources"]["limits"]["memory"]), name


def test_every_container_starts_again_and_is_checked(project: dict[str, Any]) -> None:
    for name, service in services(project).items():
        assert service["restart"] == "unless-stopped", name
        assert service["init"] is True, name
        check = service.get("healthcheck")
        assert check or stage(service).health_check, name
        assert not (check or {}).get("disable"), name


def test_a_health_check_of_ours_ends_before_docker_ends_it(project: dict[str, Any]) -> None:
    for name in SETTINGS:
        service = services(project)[name]
        found = service.get("healthcheck") or {}
        timeout = found.get("timeout") or re.findall(r"--timeout=(\w+)", stage(service).health_check or "")[0]
        assert seconds(timeout) > health_check.SECONDS, name
        command = str(found.get("test") or stage(service).health_check)
        scheme, port = re.findall(r"(http|grpc)://127\.0\.0\.1:(\d+)/", command)[0]
        variable_of_port = "HEADRACE_HTTP_PORT" if scheme == "http" else "HEADRACE_GRPC_PORT"
        assert environment(service)[variable_of_port] == port, name


def test_a_service_waits_until_what_it_needs_is_well(project: dict[str, Any]) -> None:
    for name, service in services(project).items():
        for other, how in service.get("depends_on", {}).items():
            assert how["condition"] == "service_healthy", (name, other)
    assert set(services(project)["proxy"]["depends_on"]) == {"gateway"}
    for name in SETTINGS:
        needed = neighbours(project, name) & {"consul", "redis", "tasks-db", "results-db"}
        assert set(services(project)[name]["depends_on"]) >= needed, name


def test_a_service_has_more_time_to_stop_than_it_takes(project: dict[str, Any]) -> None:
    for name, settings in SETTINGS.items():
        grace = settings.model_fields["grace"].default.total_seconds()
        assert seconds(services(project)[name]["stop_grace_period"]) >= grace + 5, name


def test_only_the_proxy_is_published_and_only_on_this_machine_unless_somebody_says_so(project: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in services(project).items() if "ports" in service}
    assert published.keys() == {"proxy"}
    # To all the world it is published by HTTPS alone.
    expected = "0.0.0.0:443:8443" if "tls_key" in secrets(services(project)["proxy"]) else "127.0.0.1:8080:8080"
    assert [substituted(port) for port in published["proxy"]] == [expected]


def test_only_the_proxy_and_the_handlers_have_a_way_out(project: dict[str, Any]) -> None:
    open_networks = {name for name, network in project["networks"].items() if not (network or {}).get("internal")}
    ways_to_databases = {DATABASES[name] for name in elsewhere(project)}
    assert open_networks == {"public", "internet"} | ways_to_databases
    assert members(project, "public") == {"proxy"}
    assert members(project, "internet") == {"execution"}
    for name, service in services(project).items():
        assert networks(service) <= project["networks"].keys(), name


def test_who_reaches_whom(project: dict[str, Any]) -> None:
    assert neighbours(project, "proxy") == {"gateway"}
    assert neighbours(project, "redis") == {"gateway", "management"}
    assert neighbours(project, "consul") == {"gateway", "management", "execution"}
    assert members(project, "tasks") - {"tasks-db"} == {"management"}
    assert members(project, "results") - {"results-db"} == {"execution"}
    for database, network in DATABASES.items():
        assert database in elsewhere(project) or networks(services(project)[database]) == {network}


def test_services_announce_themselves_where_the_registry_and_the_others_are(project: dict[str, Any]) -> None:
    subnet = project["networks"]["control"]["ipam"]["config"][0]["subnet"]
    for name in SETTINGS:
        service = services(project)[name]
        assert service["environment"]["HEADRACE_ADVERTISE_HOST"] == subnet, name
        assert "control" in networks(service), name


def test_secrets_come_from_files_alone(project: dict[str, Any]) -> None:
    for name, service in services(project).items():
        for key, value in environment(service).items():
            if _SECRET_NAMES.search(key):
                assert key.endswith("_FILE"), (name, key)
            if key.endswith("_FILE"):
                assert value.removeprefix("/run/secrets/") in secrets(service), (name, key)
        assert secrets(service) <= project["secrets"].keys(), name
    for name, secret in project["secrets"].items():
        made_here = Path(secret["file"]).parent == Path("deploy/secrets")
        assert made_here or re.fullmatch(r"\$\{[A-Z_]+:\?[^}]*\}", secret["file"]), name
    assert "deploy/secrets/" in (ROOT / ".gitignore").read_text().splitlines()


def test_secret_settings_are_given_as_files(project: dict[str, Any]) -> None:
    for name, settings in SETTINGS.items():
        given = environment(services(project)[name])
        for field_name, field in settings.model_fields.items():
            if field.annotation in (SecretStr, SecretStr | None):
                assert variable(field_name) not in given, name
                assert f"{variable(field_name)}_FILE" in given, (name, field_name)


def written_files() -> list[Path]:
    """What is written by hand for containers: not what tools have made there."""
    made = {"secrets", "backups", "__pycache__"}
    files = [path for path in DEPLOY.rglob("*") if path.suffix != ".lock" and not made & set(path.parts)]
    return [BASE, *sorted(path for path in files if path.is_file())]


@pytest.mark.parametrize("path", written_files(), ids=lambda path: path.name)
def test_no_file_holds_a_password(path: Path) -> None:
    text = path.read_text()
    assert not _PASSWORD_IN_URL.search(text)
    assert not re.search(r"(?mi)^\s*(requirepass|masterauth)\b", text)
    assert not re.search(r"(?i)\b(trust|changeme|hunter2)\b", text)


def known_variables(name: str) -> set[str]:
    """The variables that a service reads."""
    known = {variable(field) + suffix for field in SETTINGS[name].model_fields for suffix in ("", "_FILE")}
    handlers = {variable(field) for field in HandlerSettings.model_fields}
    return known | handlers if name == "execution" else known


def test_every_variable_of_a_compose_file_is_a_setting_of_its_service(project: dict[str, Any]) -> None:
    for name, service in services(project).items():
        given = {key for key in service.get("environment", {}) if key.startswith(ENV_PREFIX)}
        assert given <= (known_variables(name) if name in SETTINGS else set()), name


@pytest.mark.parametrize("name", SETTINGS)
def test_every_variable_of_an_image_is_a_setting_of_its_service(name: str) -> None:
    given = {key for key in STAGES[name].environment if key.startswith(ENV_PREFIX)}
    assert given
    assert given <= known_variables(name)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_service_takes_the_settings_that_it_is_given(
    name: str, project: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("something://else")
    for key, value in environment(services(project)[name]).items():
        if key.startswith(ENV_PREFIX):
            monkeypatch.setenv(key, str(secret) if key.endswith("_FILE") else value)
    # That of the containers is none that this machine is in.
    monkeypatch.setenv("HEADRACE_ADVERTISE_HOST", "127.0.0.0/8")
    settings = load_settings(SETTINGS[name])
    assert settings.host == "0.0.0.0"
    assert settings.current_host() == "127.0.0.1"


def test_there_are_three_of_those_that_replace_each_other() -> None:
    replicas = {name: services(load(BASE))[name]["deploy"]["replicas"] for name in SETTINGS}
    assert replicas == {"gateway": 1, "management": 3, "execution": 3}


def redis_settings() -> dict[str, str]:
    lines = (DEPLOY / "redis" / "redis.conf").read_text().splitlines()
    return dict(line.split(maxsplit=1) for line in lines if line.strip() and not line.startswith("#"))


def test_redis_keeps_what_it_has_acknowledged() -> None:
    settings = redis_settings()
    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "always"
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["include"] == "/run/secrets/redis_auth"
    assert "redis_auth" in secrets(services(load(BASE))["redis"])


def test_redis_has_room_for_what_gateways_let_wait_there_and_its_container_for_a_rewrite() -> None:
    redis = services(load(BASE))["redis"]
    gateway = environment(services(load(BASE))["gateway"])
    backlog = int(gateway.get("HEADRACE_BACKLOG_BYTES_MAX", GatewaySettings.model_fields["backlog_bytes_max"].default))
    memory = size(redis_settings()["maxmemory"])
    assert backlog < memory
    assert 2 * memory <= size(redis["deploy"]["resources"]["limits"]["memory"])


def postgres_settings() -> dict[str, str]:
    text = (DEPLOY / "postgres" / "postgresql.conf").read_text()
    return dict(re.findall(r"(?m)^(\w+) = (.+)$", text))


def test_postgresql_keeps_what_it_has_committed() -> None:
    settings = postgres_settings()
    assert [settings[name] for name in ("fsync", "synchronous_commit", "full_page_writes")] == ["on", "on", "on"]
    assert settings["password_encryption"] == "scram-sha-256"


def test_the_proxy_waits_longer_and_takes_more_than_the_gateways() -> None:
    settings = dict(re.findall(r"(?m)^ +(\w+) (\S+);$", (DEPLOY / "nginx" / "nginx.conf").read_text()))
    assert size(settings["client_max_body_size"]) > GatewaySettings.model_fields["body_bytes_max"].default
    body_timeout = GatewaySettings.model_fields["body_timeout"].default.total_seconds()
    assert seconds(settings["client_body_timeout"]) > body_timeout
    assert seconds(settings["proxy_read_timeout"]) > WAIT_SECONDS_MAX
    assert seconds(settings["proxy_read_timeout"]) > PING_SECONDS + PONG_SECONDS
