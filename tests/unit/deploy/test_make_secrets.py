"""The passwords of docker-compose.yml: made once, for their readers alone, and shown to nobody."""

import json
import stat
from pathlib import Path
from urllib.parse import urlsplit

import psycopg.conninfo
import pytest

from deploy import make_secrets
from tests.unit.deploy.compose_files import BASE, load


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "secrets"
    monkeypatch.setattr(make_secrets, "FOLDER", folder)
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_all_files_are_made_that_containers_are_given(folder: Path) -> None:
    make_secrets.main()
    asked_for = {Path(secret["file"]).name for secret in load(BASE)["secrets"].values()}
    assert contents(folder).keys() == asked_for


def test_they_are_readable_and_their_folder_is_not(folder: Path) -> None:
    """Containers run as users of their own, and are given the files alone."""
    folder.mkdir(mode=0o755)
    make_secrets.main()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o444}


def test_what_is_there_is_kept(folder: Path) -> None:
    make_secrets.main()
    first = contents(folder)
    make_secrets.main()
    assert contents(folder) == first


def test_what_is_missing_is_made_to_fit_what_is_there(folder: Path) -> None:
    make_secrets.main()
    first = contents(folder)
    for name in ("tasks_dsn", "redis_url", "redis_auth", "consul_acl.json"):
        (folder / name).unlink()
    make_secrets.main()
    assert contents(folder) == first


def test_every_form_has_the_same_secret(folder: Path) -> None:
    make_secrets.main()
    made = contents(folder)
    for name, host, database in (("tasks", "tasks-db", "headrace"), ("results", "results-db", "headrace_results")):
        dsn = psycopg.conninfo.conninfo_to_dict(made[f"{name}_dsn"])
        assert (dsn["host"], dsn["user"], dsn["dbname"]) == (host, "headrace", database)
        assert dsn["password"] == made[f"{name}_db_password"]
    redis = urlsplit(made["redis_url"])
    assert (redis.hostname, redis.password) == ("redis", made["redis_password"])
    assert made["redis_auth"] == f"requirepass {made['redis_password']}\n"
    acl = json.loads(made["consul_acl.json"])["acl"]
    assert (acl["enabled"], acl["default_policy"]) == (True, "deny")
    assert set(acl["tokens"].values()) == {made["consul_token"]}


def test_secrets_are_long_and_each_is_another(folder: Path) -> None:
    make_secrets.main()
    made = contents(folder)
    secrets = [made[name] for name in ("tasks_db_password", "results_db_password", "redis_password", "consul_token")]
    for path in folder.iterdir():
        path.unlink()
    make_secrets.main()
    again = contents(folder)
    secrets += [again[name] for name in ("tasks_db_password", "results_db_password", "redis_password", "consul_token")]
    assert len(set(secrets)) == 8
    assert min(map(len, secrets)) >= 32


def test_no_secret_is_shown(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make_secrets.main()
    shown = "".join(capfd.readouterr())
    assert not [name for name, content in contents(folder).items() if content.strip() in shown]


def test_files_that_were_being_made_are_not_taken_for_secrets(folder: Path) -> None:
    folder.mkdir()
    (folder / ".redis_password.new").write_text("half")
    make_secrets.main()
    assert (folder / "redis_password").read_text() != "half"
    assert not (folder / ".redis_password.new").exists()
