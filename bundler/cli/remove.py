"""``bundler remove``, ``uninstall`` and ``du``: room on the disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bundler.cli.command import command
from bundler.cli.completion import installed_parts
from bundler.cli.output import answer, say
from bundler.cli.progress import reporter
from bundler.cli.serving import installation_option
from bundler.common.units import size_text
from bundler.errors import UsageError

if TYPE_CHECKING:
    from bundler.work.remove import Leaving


@command("remove")
@click.argument("names", metavar="MODEL|ENV…", nargs=-1, required=True, shell_complete=installed_parts)
@installation_option
def remove_command(names: tuple[str, ...], begin: Path) -> None:
    """Take models or environments out of an installation.

    Of an environment also what the store holds for it alone. Older generations keep theirs. To have it
    again, unpack its bundle again.
    """
    from bundler.installation import find_installation
    from bundler.work.remove import remove

    found = find_installation(begin)
    say(f"installation: {found.root}")
    done = remove(found, names)
    answer(done, f"removed {', '.join(done.names)}; {size_text(done.freed)} freed")


@command("uninstall")
@click.argument("place", metavar="DEST", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--yes", is_flag=True, help="Don't ask.")
def uninstall_command(place: Path, yes: bool) -> None:
    """Remove an installation: its folder, systemd's units that serve from it, this user's caches of it."""
    from bundler.generations import home_of
    from bundler.work.remove import uninstall, what_leaves

    home = home_of(place.absolute())
    leaving = what_leaves(home)
    say(f"installation: {home}")
    _show(leaving)
    if not yes and not _agreed():
        say("nothing was removed")
        answer({"removed": []})
        return
    uninstall(leaving, reporter())
    answer({"removed": [leaving.home, *leaving.units, *leaving.caches]}, f"{home} is removed")


def _show(leaving: Leaving) -> None:
    for path in (leaving.home, *leaving.units, *leaving.caches):
        say(f"to be removed: {path}")
    for name in leaving.strangers:
        say(f"stays, as it isn't bundler's: {leaving.home / name}")


def _agreed() -> bool:
    try:
        return click.confirm("remove all of this?", err=True)
    except click.Abort:
        raise UsageError("nobody is here to be asked", hint="say so on the command line: --yes") from None


@command("du")
@click.argument(
    "place",
    metavar="[PLACE]",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    required=False,
)
def du_command(place: Path | None) -> None:
    """Say who takes what of the disk: models, environments, store, caches, in an installation or a workspace.

    PLACE is its folder; without it, the installation that is meant, else the workspace here.
    """
    from bundler.errors import UnknownNameError
    from bundler.installation import find_installation
    from bundler.work.usage import usage

    if place is None:
        try:
            place = find_installation().home
        except UnknownNameError:
            place = Path.cwd()
    found = usage(place.absolute())
    rows = [(one.bytes, one.part) for one in sorted(found, key=lambda part: -part.bytes)]
    rows += [(sum(size for size, _ in rows), "in all")] if rows else []
    nothing = " nothing of bundler's is here: no installation, workspace or bundle"
    say(f"{place.absolute()}:{'' if rows else nothing}")
    answer(
        {"place": place.absolute(), "parts": found},
        *(f"{size_text(size):>9}  {part}" for size, part in rows),
    )
