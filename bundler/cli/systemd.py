"""``bundler systemd``: units for the server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from bundler.cli.serving import choice_of, launch_options, selection_options
from bundler.serve.systemd import START_SECONDS, UnitSettings, unit, unit_name
from bundler.work.serving import open_choice


@click.command("systemd")
@selection_options
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), help="Write units there.")
@click.option("--user", help="The user that serves.  [default: root]")
@click.option("--timeout", type=int, default=START_SECONDS, show_default=True, help="Seconds until ready.")
@click.option(
    "--api-key-file", type=click.Path(path_type=Path, dir_okay=False), help="The key that clients must give."
)
@launch_options
def systemd_command(output: Path | None, **options: Any) -> None:
    """Write a systemd unit for the server, one for each node where there are several."""
    settings = _settings(options)
    ranks = range(settings.nnodes)
    if output is None:
        click.echo("\n".join(unit(settings, rank) for rank in ranks), nl=False)
        return
    output.mkdir(parents=True, exist_ok=True)
    for rank in ranks:
        path = output / unit_name(settings, rank)
        path.write_text(unit(settings, rank))
        click.echo(str(path))


def _settings(options: dict[str, Any]) -> UnitSettings:
    opened = open_choice(choice_of(options))
    root = opened.target.root.absolute()
    own = root / "bin" / "bundler"
    arguments: list[str] = []
    for flag, value in (
        ("--python", str(opened.target.software.python) if options["python"] else None),
        ("--tp-size", options["tp_size"]),
        ("--host", options["host"]),
        ("--dist-init-addr", options["dist_init_addr"]),
        ("--api-key-file", options["api_key_file"] and options["api_key_file"].absolute()),
    ):
        arguments += [] if value is None else [flag, str(value)]
    for name in options["keep_env"]:
        arguments += ["--keep-env", name]
    return UnitSettings(
        root=root,
        bundler=[str(own)] if own.exists() else [sys.executable, "-m", "bundler"],
        model=opened.target.spec.name,
        environment=opened.target.software.environment,
        port=opened.launch.port,
        arguments=arguments,
        extra=options["extra"],
        user=options["user"],
        nnodes=options["nnodes"],
        start_seconds=options["timeout"],
    )
