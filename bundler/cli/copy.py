"""``bundler copy``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bundler.cli.command import command
from bundler.cli.output import answer, say
from bundler.cli.trust import trust_options
from bundler.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bundler.archive.trust import Trust
    from bundler.work.copy import Disk


@command("copy")
@click.argument(
    "places", metavar="BUNDLE… DISK…", nargs=-1, type=click.Path(path_type=Path, file_okay=False, exists=True)
)
@click.option("--each", is_flag=True, help="The whole bundle on each disk, instead of once over all of them.")
@click.option("--in-turn", is_flag=True, help="Disks are changed in one drive: the next one is asked for.")
@click.option("--again", is_flag=True, help="With --in-turn: forget which disks were copied to before.")
@trust_options
def copy_command(places: tuple[Path, ...], each: bool, in_turn: bool, again: bool, trust: Trust) -> None:
    """Copy a finished bundle onto disks, and read back each file from the disk that took it.

    BUNDLE is the bundle's folder, or several that hold it together; DISK is a folder where a disk is mounted.
    The disks are filled in order, in a folder of the bundle's name. Interrupted, the same command goes on.
    """
    from bundler.archive.bundle import Bundle
    from bundler.cli.progress import reporter
    from bundler.work.copy import CopyOptions, copy_bundle

    folders, disks = _sorted(places)
    ask = _ask if in_turn and sys.stdin.isatty() else None
    options = CopyOptions(each=each, in_turn=in_turn, again=again, ask=ask, reporter=reporter())
    with Bundle.open(folders, trust) as bundle:
        say(f"copying {bundle.name} from {', '.join(map(str, folders))} to {', '.join(map(str, disks))}")
        filled = copy_bundle(bundle, disks, options)
        answer(
            {"bundle": bundle.name, "disks": [_record(disk) for disk in filled]},
            *(f"{disk.folder}: {len(disk.volumes)} volumes, read back from the disk" for disk in filled),
        )


def _record(disk: Disk) -> dict[str, Any]:
    volumes = [{"name": one.name, "size": one.size, "sha256": one.sha256} for one in disk.volumes]
    return {"folder": disk.folder, "volumes": volumes}


def _sorted(places: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Tell the bundle's folders from the disks.

    :raises UsageError: there are not both.
    """
    from bundler.archive.bundle import find_bundle, is_bundle

    if not places:
        raise UsageError("no bundle was named", hint="bundler copy BUNDLE DISK…")
    folders = [find_bundle(places[0]), *(place for place in places[1:] if is_bundle(place))]
    disks = [place for place in places[1:] if place not in folders]
    if not disks:
        raise UsageError("no disk was named", hint=f"bundler copy {places[0]} DISK…")
    return folders, disks


def _ask(root: Path, waiting: int) -> bool:
    """Ask for the next disk in the place of a full one."""
    text = f"{root} is full, {waiting} volumes wait: mount the next disk there and press Enter (q: not now)"
    return bool(click.prompt(text, default="", show_default=False, err=True).strip().lower() != "q")
