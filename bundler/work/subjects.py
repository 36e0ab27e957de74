"""What a command's paths mean: bundles, each in its folders, and installations."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from bundler.archive.bundle import Bundle, find_bundle
from bundler.archive.sums import LARGEST_MANIFEST, MANIFEST
from bundler.archive.trust import ASK_NOTHING
from bundler.common.durable import read_plain
from bundler.errors import InputError, PartialError, UnknownNameError
from bundler.installation import JOURNAL, RECEIPT, Installation, find_installation, waiting_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bundler.archive.trust import Trust


def find_subjects(
    places: Sequence[Path], trust: Trust = ASK_NOTHING
) -> tuple[list[Bundle], list[Installation]]:
    """Open what is meant.

    A place is an installation, or a folder of a bundle, or a disk with one bundle directly below; folders
    with the same manifest hold one bundle together. Without places, the bundle and the installation that are
    here.

    :param trust: what is asked of bundles.
    :raises UnknownNameError: there is none.
    :raises UntrustedError: a bundle isn't what is asked for.
    :raises PartialError: an installation whose first unpack waits for volumes.
    :raises InputError: an installation whose first unpack is unfinished.
    """
    for place in places or (Path(),):
        _refuse_unfinished(place)
    if not places:
        return _find_here(trust)
    installations = [Installation(place) for place in places if (place / RECEIPT).is_file()]
    folders = [find_bundle(place) for place in places if not (place / RECEIPT).is_file()]
    return _open(folders, trust), installations


def _refuse_unfinished(place: Path) -> None:
    if not (place / JOURNAL).is_file() or (place / RECEIPT).is_file():
        return
    if waiting := waiting_of(place):
        raise PartialError(
            f"{waiting.bundle} is unpacked here in part; it waits for {len(waiting.volumes)} volume(s)",
            where=place,
            findings=waiting.volumes,
            hint=f"insert the disk with {waiting.volumes[0]}: "
            f"bundler unpack --partial DISK {shlex.quote(str(place))}",
        )
    raise InputError(
        "a bundle is unpacked here in part; only a whole one can be looked at",
        where=place,
        hint=f"finish it: bundler unpack BUNDLE {shlex.quote(str(place))}",
    )


def _find_here(trust: Trust) -> tuple[list[Bundle], list[Installation]]:
    bundles: list[Bundle] = []
    installations: list[Installation] = []
    problem = None
    try:
        bundles = _open([find_bundle()], trust)
    except UnknownNameError as error:
        problem = error
    try:
        installations = [find_installation(Path())]
    except UnknownNameError as error:
        if not bundles:
            raise problem or error from None
    return bundles, installations


def _open(folders: Sequence[Path], trust: Trust) -> list[Bundle]:
    """Open bundles; folders with one manifest are one bundle's."""
    groups: dict[bytes, list[Path]] = {}
    for folder in folders:
        try:
            data = read_plain(folder / MANIFEST, LARGEST_MANIFEST)
        except OSError:
            # What is wrong with it is said when it is opened.
            data = bytes(folder)
        groups.setdefault(data, []).append(folder)
    return [Bundle.open(group, trust) for group in groups.values()]
