"""``bundler history`` and ``bundler rollback``: an installation's generations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bundler.cli.command import command
from bundler.cli.options import restart_option
from bundler.cli.output import answer, say
from bundler.cli.progress import reporter
from bundler.cli.serving import installation_option
from bundler.common.units import size_text

if TYPE_CHECKING:
    from pathlib import Path

    from bundler.generations import Step
    from bundler.work.history import Generation


@command("history")
@installation_option
def history_command(begin: Path) -> None:
    """Say which generations an installation has, what brought each, and what was done when."""
    from bundler.installation import find_installation
    from bundler.work.history import history

    told = history(find_installation(begin).home)
    answer(told, *map(_line, told.generations), *map(_step, told.steps))


def _step(step: Step) -> str:
    brought = f" by {step.bundle} ({step.signed})" if step.bundle else ""
    return f"{step.when}  {step.what} to generation {step.number}{brought}"


def _line(one: Generation) -> str:
    mark = "*" if one.current else " "
    parts = [f"{mark} {one.number}: {', '.join(one.bundles)}"]
    parts.append(f"environments {', '.join(one.environments) or 'none'}")
    parts.append(f"models {', '.join(one.models) or 'none'}")
    parts.append(f"{size_text(one.own_bytes)} of its own")
    return "; ".join(parts)


@command("rollback")
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
    answer({"installation": home, "generation": number}, f"generation {number} counts now")
