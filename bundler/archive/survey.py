"""What of a bundle is in the destination already, and whether it may go there at all."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from bundler.archive import validate
from bundler.common.broken import BROKEN_JSON
from bundler.common.durable import read_plain
from bundler.common.progress import SILENT
from bundler.common.threads import in_order
from bundler.errors import BundlerError, DamagedError, DestinationError, PreflightError
from bundler.installation import BUNDLES, PARTIAL, RECEIPT, RESERVED, STATE, TRIED, Receipt, read_kept
from bundler.record import compare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from bundler.archive.bundle import Bundle
    from bundler.archive.target import Target
    from bundler.archive.unpack_state import UnpackState
    from bundler.common.progress import Reporter
    from bundler.manifest import Manifest

LONGEST_NAME, LONGEST_PATH = 255, 4096
"""Bytes of a name, and of a path with the NUL behind it, that Linux takes."""
_SHOWN = 10
_NOT_OTHERS = RESERVED | {"lost+found"}
"""What a folder may hold that is to become an installation: install.sh's work, and a file system's own."""


@dataclass
class Survey:
    """The files of the tree that are in the destination already."""

    kept: dict[int, int] = field(default_factory=dict)
    """Modification time of each whole file by its number in the tree."""
    conflicts: list[str] = field(default_factory=list)
    """Paths with other content, which nobody said may be replaced."""


def check_place(bundle: Bundle, destination: Path) -> None:
    """Refuse a destination before anything is made there.

    :raises DestinationError: it is inside the bundle, the bundle is inside it, or it holds other things.
    """
    refuse_nowhere(destination)
    place = destination.resolve()
    _check_length(bundle.manifest, place)
    for folder in bundle.folders:
        home = folder.resolve()
        if place == home or home in place.parents:
            raise DestinationError(
                "the destination is inside the bundle", where=destination, hint="name a folder outside of it"
            )
        if place in home.parents and not _is_ours(place):
            raise DestinationError(
                "the bundle is inside the destination",
                where=destination,
                hint="name a new folder, beside the bundle for instance",
            )
    if destination.exists() and not destination.is_dir():
        raise DestinationError("the destination is not a folder", where=destination, hint="name a new folder")
    if destination.is_dir() and not _is_ours(place):
        try:
            # What stock tools took out of this bundle is adopted, file by file.
            known = _NOT_OTHERS | {entry.path.partition("/")[0] for entry in bundle.manifest.tree}
            names = (child.name for child in destination.iterdir())
            others = sorted(name for name in names if name not in known and not name.startswith(TRIED))
        except OSError as problem:
            raise PreflightError(
                f"the destination can't be read: {problem.strerror}", where=destination
            ) from problem
        if others:
            raise DestinationError(
                f"the destination holds other things: {', '.join(others[:5])}",
                where=destination,
                hint="name a new or empty folder, or an installation to add this bundle to",
            )
    _check_others_files(bundle.manifest, destination)


def refuse_nowhere(place: Path) -> None:
    """Refuse a path that can't be a folder's: a link in a circle, a name that no file system takes.

    :raises DestinationError: it can't be.
    """
    number = errno.ENAMETOOLONG if any(len(os.fsencode(part)) > LONGEST_NAME for part in place.parts) else 0
    try:
        place.stat()
    except OSError as problem:
        number = number or problem.errno or 0
    words = {errno.ELOOP: "a link in a circle", errno.ENAMETOOLONG: "its name is too long"}
    if number in words:
        raise DestinationError(
            f"this can't be a folder: {words[number]}", where=place, hint="name another folder"
        )


def _check_length(manifest: Manifest, place: Path) -> None:
    """Refuse a destination below which the bundle's longest path would be longer than Linux takes."""
    longest = max((len(entry.path.encode()) for entry in manifest.tree), default=0)
    if len(os.fsencode(place / PARTIAL)) + 1 + longest >= LONGEST_PATH:
        raise DestinationError(
            f"the destination's path is too long: the bundle has one of {longest} bytes to go below it",
            where=place,
            hint="name a folder with a shorter path",
        )


def _check_others_files(manifest: Manifest, destination: Path) -> None:
    """Refuse to add a bundle to one of another lock, by the manifests alone.

    :raises DestinationError: an earlier bundle's files would be replaced.
    """
    promised = _promised(destination)
    others = {path for path, _ in promised}
    doubtful = [
        entry
        for entry in manifest.tree
        if entry.kind == "file" and entry.path in others and (entry.path, entry.sha256) not in promised
    ]
    differing = compare(destination, doubtful, deep=True)
    paths = sorted(one.entry.path for one in differing if one.kind != "missing")
    if paths:
        raise DestinationError(
            f"the installation there was made of other files: it has another {' and '.join(paths[:3])}",
            where=destination,
            findings=paths[3:_SHOWN],
            hint="unpack this bundle to a new folder: an installation has one lock, and one of each model",
        )


def _is_ours(place: Path) -> bool:
    return (place / STATE).is_dir()


def check_case(manifest: Manifest, destination: Path, tells_case: Callable[[Path], bool]) -> None:
    """Refuse a file system that takes two names of an environment for one.

    :param tells_case: whether the destination's file system tells upper from lower case.
    :raises PreflightError: it doesn't, and that matters for this bundle.
    """
    if tells_case(destination):
        return
    collisions = validate.case_collisions(entry.path for entry in manifest.tree)
    if collisions or manifest.environments:
        raise PreflightError(
            "the destination's file system doesn't tell upper from lower case",
            where=destination,
            findings=[f"{one} and {other} would be one file" for one, other in collisions[:_SHOWN]],
            hint="name a folder on ext4, xfs or another Linux file system: "
            "environments hold names that differ by case only",
        )


def survey(
    bundle: Bundle, target: Target, state: UnpackState, threads: int, reporter: Reporter = SILENT
) -> Survey:
    """Find which files are there already, whole.

    A file is believed without being read where its size and time are those of the journal or the receipt;
    another one is hashed, whoever put it there, and the journal
    knows it from then on. A differing file may be replaced only where this content was unpacked there before,
    then it was damaged since, or where it is a beginning of this content, as an interrupted ``tar x`` leaves
    it.

    :raises DestinationError: a folder or a link of the tree can't be made because of what is there.
    """
    found = Survey()
    receipt = _receipt(target.root)
    promised = _promised(target.root)
    doubtful = []
    ours = {*state.placed}
    for number, entry in enumerate(bundle.manifest.tree):
        if entry.kind != "file":
            continue
        there = target.status(entry.path)
        if there is None:
            continue
        known = state.placed.get(number)
        seen = (there.st_size, there.st_mtime_ns)
        believed = seen in ((entry.size, known), receipt.get((entry.path, entry.sha256)))
        just_placed = state.just_placed(number, entry)
        damaged = known is not None or (entry.path, entry.sha256) in promised
        if stat.S_ISREG(there.st_mode) and believed:
            found.kept[number] = there.st_mtime_ns
        elif stat.S_ISREG(there.st_mode) and there.st_size == entry.size:
            doubtful.append((number, there.st_mtime_ns))
            ours |= {number} if just_placed else set()
        elif stat.S_ISREG(there.st_mode) and (damaged or just_placed or is_beginning(bundle, target, number)):
            continue
        elif stat.S_ISDIR(there.st_mode) or not damaged:
            found.conflicts.append(entry.path)

    if not doubtful:
        return found
    tree = bundle.manifest.tree
    with reporter.phase("compare", sum(tree[number].size for number, _ in doubtful)) as meter:

        def adopt(item: tuple[int, int]) -> bool:
            return target.adopt(tree[item[0]], meter.advance)

        for (number, modified), same in in_order(adopt, doubtful, threads, "compare"):
            entry = tree[number]
            if same:
                found.kept[number] = modified
                state.note_adopted(number, modified)
            elif number not in ours and (entry.path, entry.sha256) not in promised:
                found.conflicts.append(entry.path)
    return found


def is_beginning(bundle: Bundle, target: Target, number: int) -> bool:
    """Tell whether a file that is there is what a file of the tree begins with: nothing is lost with it.

    :param number: the file's place in the tree.
    """
    entry = bundle.manifest.tree[number]
    with os.fdopen(target.open_file(entry.path), "rb") as there:
        size = os.fstat(there.fileno()).st_size
        if size >= entry.size or entry.offset < 0:
            return False
        try:
            for frame in bundle.layout.within(entry.offset, entry.offset + size) if size else ():
                content = bundle.content(frame)
                for piece in bundle.layout.slices(bundle.layout.frame(frame)):
                    wanted = content[piece.begin : piece.end][: max(0, size - piece.at)]
                    if piece.entry == number and there.read(len(wanted)) != wanted:
                        return False
        except (DamagedError, KeyError):
            # Damaged, or on a disk that isn't here.
            return False
        return True


def refuse_conflicts(conflicts: Iterable[str], destination: Path) -> None:
    """Refuse to overwrite.

    :raises DestinationError: naming the files.
    """
    paths = sorted(conflicts)
    if paths:
        more = [f"and {len(paths) - _SHOWN} more"] if len(paths) > _SHOWN else []
        raise DestinationError(
            "files of the same name and other content are in the destination; nothing was overwritten",
            where=destination,
            findings=paths[:_SHOWN] + more,
            hint="unpack to a new folder, or move these files away",
        )


def _receipt(root: Path) -> dict[tuple[str, str], tuple[int, int]]:
    try:
        receipt = msgspec.json.decode(read_plain(root / RECEIPT), type=Receipt)
    except (OSError, *BROKEN_JSON):
        return {}
    return {(file.path, file.sha256): (file.size, file.mtime_ns) for file in receipt.files}


def _promised(root: Path) -> set[tuple[str, str]]:
    """Return path and sha256 of every file of the bundles that were unpacked here."""
    found: set[tuple[str, str]] = set()
    for path in (root / BUNDLES).glob("*.json"):
        try:
            found |= {(entry.path, entry.sha256) for entry in read_kept(path).tree}
        except BundlerError:
            continue
    return found
