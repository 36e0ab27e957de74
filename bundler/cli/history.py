"""``bundler history`` and ``bundler rollback``: an installation's generations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bundler.cli.options import json_option, restart_option
from bundler.cli.output import show_json
from bundler.cli.progress import reporter, say
from bundler.cli.serving import installation_option
from bundler.common.text import printable
from bundler.common.units import size_text

if TYPE_CHECKING:
    from pathlib import Path

    from bundler.work.history import Generation


@click.command("history")
@installation_option
@json_option
def history_command(begin: Path, as_json: bool) -> None:
    """Say which generations an installation has, what brought each, and what was done when."""
    from bundler.installation import find_installation
    from bundler.work.history import history

    told = history(find_installation(begin).home)
    if as_json:
        show_json(told)
        return
    for one in told.generations:
        click.echo(_line(one))
    for step in told.steps:
        brought = f" by {step.bundle} ({step.signed})" if step.bundle else ""
        click.echo(printable(f"{step.when}  {step.what} to generation {step.number}{brought}"))


def _line(one: Generation) -> str:
    mark = "*" if one.current else " "
    parts = [f"{mark} {one.number}: {', '.join(one.bundles)}"]
    parts.append(f"environments {', '.join(one.environments) or 'none'}")
    parts.append(f"models {', '.join(one.models) or 'none'}")
    parts.append(f"{size_text(one.own_bytes)} of its own")
    return printable("; ".join(parts))


@click.command("rollback")
@installation_option
@click.option("--to", type=click.IntRange(min=1), help="The generation.  [default: the one before]")
@restart_option
def rollback_command(begin: Path, to: int | None, restart: bool) -> None:
    """Let an older generation of an installation count again.

    A server that runs goes on from its own; it is said which.
    """
    from bundler.installation import find_installation
    from bundler.work.running import require_systemd
    from bundler.work.update import roll_back

    if restart:
        require_systemd()
    home = find_installation(begin).home
    say(f"installation: {home}")
    number = roll_back(home, to, reporter(), restarts=restart)
    say(f"generation {number} counts now", result=True)
