"""What the words of ``unpack`` mean: the bundle's folders, and the destination."""

from __future__ import annotations

import os
import shlex
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from bundler.archive.bundle import bundles_below, find_bundle, is_bundle
from bundler.archive.media import PACK_JOURNAL
from bundler.archive.sums import LOG, MANIFEST, README, SIGNATURE, SUMS, is_volume
from bundler.archive.survey import refuse_nowhere
from bundler.errors import DestinationError, UnknownNameError, UsageError
from bundler.installation import HOME_VARIABLE, STATE
from bundler.workspace import PACKED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bundler.archive.bundle import Bundle

NEAR = 0.75
"""From 0 to 1, as :mod:`difflib` counts: names as like as this are one name misspelt."""


def sort_places(places: Sequence[Path]) -> tuple[list[Path], Path | None]:
    """Tell the bundle's folders from the destination.

    A place is a bundle's folder, or a disk with one bundle directly below; the last one, where it is
    neither, is the destination. Without a bundle the one that is here is meant.

    :raises DestinationError: a place that can't be one.
    :raises UsageError: the destination doesn't come last, or a bundle is named twice.
    :raises UnknownNameError: no bundle is there, or several are, or a word seems to be a bundle's misspelt.
    """
    for place in places:
        refuse_nowhere(place)
        _refuse_file(place)
    *first, last = places or (None,)
    bundles = [_bundle_at(place, places) for place in first if place is not None]
    destination = None
    if last is not None:
        below = _bundle_of_last(last, bundles)
        if below is None:
            destination = last
        else:
            bundles.append(below)
    if not bundles:
        bundles = [_bundle_here(destination)]
    _refuse_twice(bundles)
    return bundles, destination


def _refuse_file(place: Path) -> None:
    """Refuse a file of a bundle, named in place of its folder."""
    if not place.is_dir() and (
        place.name in (MANIFEST, SUMS, SIGNATURE, README, LOG) or is_volume(place.name)
    ):
        raise UnknownNameError(
            f"{place.name} is a bundle's file, not its folder",
            where=place,
            hint=f"name the folder: bundler unpack {shlex.quote(str(place.parent))}",
        )


def _refuse_twice(bundles: Sequence[Path]) -> None:
    seen = set()
    for bundle in bundles:
        if bundle.resolve() in seen:
            raise UsageError(
                "the same bundle is named twice",
                where=bundle,
                hint=f"name it once, then the destination: bundler unpack {shlex.quote(str(bundle))} DEST",
            )
        seen.add(bundle.resolve())


def _bundle_at(place: Path, places: Sequence[Path]) -> Path:
    """Return the bundle at a place that isn't the last one."""
    try:
        return find_bundle(place)
    except UnknownNameError:
        if not place.exists():
            _refuse_missing(place)
        last = places[-1]
        if bundles_below(place) or _is_half(place) or not (is_bundle(last) or len(bundles_below(last)) == 1):
            raise
    words = " ".join(shlex.quote(str(one)) for one in (*(one for one in places if one != place), place))
    raise UsageError(
        "the destination comes last, and this is no bundle",
        where=place,
        hint=f"name the bundle first: bundler unpack {words}",
    )


def _refuse_missing(place: Path) -> None:
    near = _near_bundle(place)
    meant = f"did you mean {near}? " if near else ""
    raise UnknownNameError(
        "there is no such folder",
        where=place,
        hint=f"{meant}name the folder that holds manifest.json; the destination comes last",
    )


def _bundle_of_last(place: Path, bundles: Sequence[Path]) -> Path | None:
    """Return the bundle at the last place, or ``None`` where that is the destination."""
    if is_bundle(place):
        return place
    if (place / STATE).is_dir():
        return None
    below = bundles_below(place)
    if len(below) == 1:
        return None if any(below[0].samefile(one) for one in bundles) else below[0]
    # Whoever names one place only may mean a bundle.
    if not bundles and (below or _is_half(place)):
        return find_bundle(place)
    if not bundles and not place.exists() and (near := _near_bundle(place)):
        raise UnknownNameError(
            "there is no such bundle",
            where=place,
            hint=f"did you mean {near}? If this is where it goes: "
            f"bundler unpack {shlex.quote(str(near))} {shlex.quote(str(place))}",
        )
    return None


def _is_half(place: Path) -> bool:
    """Whether a folder holds a bundle that isn't whole."""
    return any((place / name).is_file() for name in (MANIFEST, SUMS, PACK_JOURNAL))


def _near_bundle(place: Path) -> Path | None:
    """Return the bundle that a misspelt place may mean.

    A name that is made from a bundle's, as ``NAME-installed`` is, is no misspelt one. Where the folder above
    isn't there either, the last name is compared with the bundle's that is here.
    """
    found = {bundle.name: bundle for bundle in bundles_below(place.parent)}
    if not place.parent.exists():
        try:
            here = find_bundle()
        except UnknownNameError:
            return None
        found[here.resolve().name] = here
    names = [name for name in found if not place.name.startswith(f"{name}-")]
    near = get_close_matches(place.name, names, 1, NEAR)
    return found[near[0]] if near else None


def _bundle_here(destination: Path | None) -> Path:
    """Return the bundle that is meant where none is named.

    :param destination: the only place that was named; whoever named it may have meant a bundle.
    """
    try:
        return find_bundle()
    except UnknownNameError as problem:
        if destination is None:
            raise
        raise UnknownNameError(
            problem.what,
            where=problem.where,
            hint=f"{destination} is no bundle either, and was taken for the destination; {problem.hint}",
        ) from None


def default_destination(bundle: Bundle) -> Path:
    """Return ``BUNDLER_HOME``, else ``NAME-installed`` in the current folder.

    :raises DestinationError: that is on the bundle's own disk, which nobody asked to be filled. What ``pack``
        wrote below the current folder wasn't carried here, and may be unpacked beside it.
    """
    if home := os.environ.get(HOME_VARIABLE):
        return Path(home)
    here, folders = Path.cwd(), bundle.folders
    name = f"{bundle.name}-installed"
    packed_here = any(folder.resolve().parent == here / PACKED for folder in folders)
    if not packed_here and here.stat().st_dev in {folder.stat().st_dev for folder in folders}:
        command = shlex.join(["bundler", "unpack", *map(str, folders), str(_room(folders[0]) / name)])
        raise DestinationError(
            f"{name} would come to lie on the bundle's own disk, and nobody asked for that",
            where=here,
            hint=f"name the destination: {command}",
        )
    return Path(name)


def _room(bundle: Path) -> Path:
    """Return a folder that one may write to, on another disk than the bundle's where there is one."""
    folders = [folder for folder in (Path("/opt"), Path.home()) if os.access(folder, os.W_OK | os.X_OK)]
    folders.sort(key=lambda folder: folder.stat().st_dev == bundle.stat().st_dev)
    return folders[0] if folders else bundle.resolve().parent
