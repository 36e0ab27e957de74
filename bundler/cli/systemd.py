"""``bundler systemd``: units for the server."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from bundler.cli.command import command
from bundler.cli.output import MANNER, answer, say, show_text
from bundler.cli.serving import AUTO, choice_of, key_option, launch_options, selection_options
from bundler.cli.typed import by_root
from bundler.errors import UsageError
from bundler.generations import home_of
from bundler.serve.systemd import START_SECONDS, unit, unit_name
from bundler.serve.unit_checks import check_unit
from bundler.work.serving import open_choice

UNITS = Path("/etc/systemd/system")


@command("systemd")
@selection_options
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), help="Write units there.")
@click.option("--user", help="The user that serves.  [default: root]")
@click.option("--timeout", type=int, default=START_SECONDS, show_default=True, help="Seconds until ready.")
@key_option()
@launch_options
def systemd_command(output: Path | None, **options: Any) -> None:
    """Write a systemd unit for the server, one for each node where there are several."""
    if options["nnodes"] == AUTO:
        raise UsageError("a unit starts without a launcher of jobs", hint="say how many nodes: --nnodes N")
    launch = open_choice(choice_of(options, options["api_key_file"])).launch
    say(f"installation: {launch.target.root}")
    check_unit(launch, options["user"])
    own = home_of(launch.target.root.absolute()) / "bin" / "bundler"
    bundler = [str(own)] if own.exists() else [sys.executable, "-m", "bundler"]
    units = {
        unit_name(launch, rank): unit(
            launch, bundler, rank, user=options["user"], start_seconds=options["timeout"]
        )
        for rank in range(options["nnodes"])
    }
    paths = {} if output is None else {name: output / name for name in units}
    records = [{"name": name, "path": paths.get(name), "text": text} for name, text in units.items()]
    if output is None and not MANNER.json:
        show_text("\n".join(units.values()))
    for name, path in paths.items():
        _write(path, units[name])
    answer({"units": records}, *map(str, paths.values()))
    if output is None:
        return
    if output.absolute() != UNITS:
        say(f"next: {by_root('cp')} {shlex.join(str(output / name) for name in units)} {UNITS}")
    # Of several nodes each has a unit of its own.
    system = by_root("systemctl")
    say(f"next: {system} daemon-reload && {system} enable --now {next(iter(units))}")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.read_text() != text:
        say(f"replaced an older unit: {path}")
    path.write_text(text)
