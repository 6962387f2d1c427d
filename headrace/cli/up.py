"""`headrace up`: a whole cluster in the foreground."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from headrace.local.errors import LocalClusterError
from headrace.local.services import MODULES
from headrace.local.up import ClusterOptions, run_cluster

DEFAULTS = ClusterOptions()


def up(
    *,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the gateway; 0 takes a free one.")] = 8080,
    data_dir: Annotated[Path, typer.Option(help="Where data and logs are kept.")] = DEFAULTS.data_dir,
    managers: Annotated[int, typer.Option(min=1, max=16, help="Management replicas.")] = DEFAULTS.managers,
    executors: Annotated[int, typer.Option(min=1, max=16, help="Execution replicas.")] = DEFAULTS.executors,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Worker processes of each executor.")] = DEFAULTS.workers,
    postgres_dsn: Annotated[str | None, typer.Option(help="Use this PostgreSQL database for tasks.")] = None,
    results_dsn: Annotated[str | None, typer.Option(help="Use this PostgreSQL database for results.")] = None,
    redis_url: Annotated[str | None, typer.Option(help="Use this Redis.")] = None,
    consul_url: Annotated[str | None, typer.Option(help="Use this Consul agent.")] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(metavar="ROLE:NAME=VALUE", help="A setting for all services of a role; may be repeated."),
    ] = None,
) -> None:
    """Start PostgreSQL, Redis, a registry and all services on this machine. Ctrl-C stops them."""
    options = ClusterOptions(
        data_dir=data_dir,
        port=port,
        managers=managers,
        executors=executors,
        workers=workers,
        postgres_dsn=postgres_dsn,
        results_dsn=results_dsn,
        redis_url=redis_url,
        consul_url=consul_url,
        role_env=parse_role_env(env or ()),
    )
    try:
        run_cluster(options, typer.echo)
    except LocalClusterError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from error


def parse_role_env(settings: Sequence[str]) -> dict[str, dict[str, str]]:
    """Read `ROLE:NAME=VALUE` settings. Raises typer.BadParameter, which the command line shows."""
    found: dict[str, dict[str, str]] = {}
    for setting in settings:
        role, colon, rest = setting.partition(":")
        name, equals, value = rest.partition("=")
        if role not in MODULES or not colon or not name or not equals:
            raise typer.BadParameter(f"{setting!r} is not ROLE:NAME=VALUE with a role of {', '.join(MODULES)}")
        found.setdefault(role, {})[name] = value
    return found
