"""What the command line makes of its arguments."""

import os
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from headrace.cli import app
from headrace.cli.up import parse_role_env
from headrace.local.cluster_file import ClusterFile, ProcessEntry


def test_settings_of_a_role_are_read() -> None:
    settings = ["execution:A=1", "execution:B=x=y:z", "gateway:A="]
    assert parse_role_env(settings) == {"execution": {"A": "1", "B": "x=y:z"}, "gateway": {"A": ""}}


@pytest.mark.parametrize("setting", ["A=1", "execution:A", "postgres:A=1", "execution:=1", ""])
def test_other_settings_are_refused(setting: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_role_env([setting])


def test_ps_without_a_cluster_says_how_to_start_one(tmp_path: Path) -> None:
    answer = CliRunner().invoke(app, ["ps", "--data-dir", str(tmp_path)])
    assert answer.exit_code == 1
    assert "headrace up" in answer.output


def test_ps_shows_a_process_that_is_not_of_the_cluster_as_dead(tmp_path: Path) -> None:
    entry = ProcessEntry(role="gateway", id="gateway-0", pid=os.getpid(), address="127.0.0.1:8080", log="gateway.log")
    ClusterFile(processes=[entry], postgres_dsn="", results_dsn="", redis_url="", consul_url="").write(tmp_path)
    answer = CliRunner().invoke(app, ["ps", "--data-dir", str(tmp_path)])
    assert answer.exit_code == 0
    header, row = answer.output.splitlines()
    assert header.split() == ["ROLE", "ID", "PID", "STATE", "ADDRESS", "STREAMS", "LOG"]
    assert row.split() == ["gateway", "gateway-0", str(os.getpid()), "dead", "127.0.0.1:8080", "-", "gateway.log"]


def test_the_cluster_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    ClusterFile(processes=[], postgres_dsn="", results_dsn="", redis_url="", consul_url="").write(tmp_path)
    assert (tmp_path / "cluster.json").stat().st_mode & 0o777 == 0o600
