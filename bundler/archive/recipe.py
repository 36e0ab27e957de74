"""What a bundle is to be made of, and the tar stream that follows from it."""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
import zstandard

from bundler import __version__
from bundler import manifest as manifests
from bundler.archive import frames, tar, validate
from bundler.archive.member import Member
from bundler.errors import DamagedError, InputError, UsageError
from bundler.manifest import Entry, Writer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from bundler.archive.tar import Offsets
    from bundler.manifest import Manifest

VOLUME_SIZE = 8 * 2**30
"""Bytes of a volume, where nobody says otherwise."""
EMPTY = hashlib.sha256(b"").hexdigest()
"""The sha256 of an empty file."""

MOST_PARITY = 32
"""The most parity volumes of a group."""
_BORDER = 8
"""A member of more than so many frames' bytes begins on a frame border."""
_SMALLEST_FRAME = 4096
_LEVELS = range(-7, 23)


@dataclass(frozen=True)
class Recipe:
    """All that decides a bundle's bytes."""

    head: Manifest
    """The manifest without tree, stream_size, volumes, frames and writer, which the writer fills in."""
    members: Sequence[Member]
    """The entries in the stream's order, folders before what is in them; missing folders are added."""
    companions: Mapping[str, Path | bytes] = field(default_factory=dict)
    """Files beside the volumes, by name: ``install.sh``, ``runtime.tar.gz``. ``*.sh`` are executable."""
    level: int = 1
    """zstd's level, -7 to 22; 0 stores everything as it is."""
    volume_size: int = VOLUME_SIZE
    """The most bytes of a volume."""
    notes: tuple[str, ...] = ()
    """Lines for README.txt: what the model needs, what the target must have."""
    frame_size: int = frames.FRAME_SIZE
    """Bytes of the stream in a frame; smaller ones make single files cheaper to read, and pack less well."""
    base: frozenset[tuple[str, int]] = frozenset()
    """sha256 and size of the files that a delta's base has: the stream doesn't carry them."""
    parity: int = 0
    """How many files may be lost and made again, of each 100; 0 makes no parity volumes."""

    def check(self) -> None:
        """Check the numbers.

        :raises UsageError: a level or a size that can't be.
        """
        if self.level not in _LEVELS:
            raise UsageError(
                f"level {self.level} is none of zstd's",
                hint="-7 (fast) to 22 (small); 0 stores; 1 suits weights",
            )
        if not _SMALLEST_FRAME <= self.frame_size <= frames.LARGEST_FRAME:
            raise UsageError(f"a frame holds {_SMALLEST_FRAME} to {frames.LARGEST_FRAME} bytes")
        if not 0 <= self.parity <= MOST_PARITY:
            raise UsageError(f"{self.parity} parity volumes can't be", hint=f"0 to {MOST_PARITY}")
        if self.volume_size < frames.largest_stored(self.frame_size):
            raise UsageError(
                f"a volume of {self.volume_size} bytes can't hold a frame",
                hint=f"--volume-size {frames.largest_stored(self.frame_size)} or more; 3900MiB suits FAT32",
            )


@dataclass(frozen=True)
class StreamPlan:
    """The tar stream before a byte of it is read: every position in it is known."""

    members: list[Member]
    """What the stream carries."""
    held: tuple[Entry, ...]
    """Files of the tree that a delta's base has."""
    places: list[Offsets]
    ending: bytes
    """The stream's last bytes, after the last member."""
    frames: array[int]
    """Where each frame begins in the stream, and last the stream's size."""

    @property
    def size(self) -> int:
        """Bytes of the stream."""
        return self.frames[-1]

    def member_at(self, position: int) -> int:
        """Return the number of the member whose header, content or padding holds a position of the stream."""
        return bisect_right(self.places, position, key=lambda place: place.end)

    def frame_at(self, position: int) -> int:
        """Return the number of the frame that holds a position of the stream."""
        return bisect_right(self.frames, position) - 1

    def tree(self, digests: Mapping[int, str]) -> tuple[Entry, ...]:
        """Return the manifest's tree.

        :param digests: the sha256 of each file that isn't empty, by its number.
        """
        rows = []
        for number, (member, place) in enumerate(zip(self.members, self.places, strict=True)):
            digest = ""
            if member.kind == "file":
                digest = digests[number] if member.size else EMPTY
            rows.append(
                Entry(
                    member.path,
                    member.kind,
                    mode_of(member),
                    member.size,
                    digest,
                    place.content,
                    member.target,
                )
            )
        return (*rows, *self.held)


def mode_of(member: Member) -> int:
    """Return a member's permission bits."""
    if member.kind == "file":
        return tar.EXECUTABLE_MODE if member.executable else tar.FILE_MODE
    return tar.DIR_MODE if member.kind == "dir" else tar.LINK_MODE


def current_writer() -> Writer:
    """Return the versions that decide the volumes' bytes."""
    return Writer(bundler=__version__, libzstd=".".join(map(str, zstandard.ZSTD_VERSION)))


def plan_stream(recipe: Recipe) -> StreamPlan:
    """Lay the stream out and check what can be checked before the first byte.

    :raises UsageError: numbers that can't be.
    :raises InputError: paths that no bundle may hold, or that are there twice.
    :raises DamagedError: an empty file that should not be empty.
    """
    recipe.check()
    every = list(_with_folders(recipe.members))
    members = [member for member in every if not _is_held(member, recipe)]
    held = tuple(
        Entry(member.path, "file", mode_of(member), member.size, member.sha256 or "", -1)
        for member in every
        if _is_held(member, recipe)
    )
    rows = ((m.path, m.kind, mode_of(m), m.size, m.target) for m in members)
    places = list(tar.places(rows))
    end = places[-1].end if places else 0
    ending = tar.ending(end)
    starts = _cut(places, end + len(ending), recipe.frame_size)
    plan = StreamPlan(members, held, places, ending, starts)
    _check(recipe, plan)
    return plan


def _is_held(member: Member, recipe: Recipe) -> bool:
    return member.kind == "file" and (member.sha256, member.size) in recipe.base


def _with_folders(members: Iterable[Member]) -> Iterator[Member]:
    """Add the folders that nobody named, each just before the first member in it."""
    seen: dict[str, str] = {}
    for member in members:
        finding = validate.path_finding(member.path)
        if finding:
            raise InputError(f"this can't be packed: {finding}", hint="rename it, or leave it out")
        parts = member.path.split("/")
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            if folder not in seen:
                seen[folder] = "dir"
                yield Member(folder, "dir")
        known = seen.get(member.path)
        if known == "dir" and member.kind == "dir":
            continue
        if known:
            raise InputError(f"two things to pack have one path: {member.path}")
        seen[member.path] = member.kind
        yield member


def _cut(places: Sequence[Offsets], size: int, frame_size: int) -> array[int]:
    """Return where frames begin: every ``frame_size`` bytes, and anew at each large member."""
    borders = [place.header for place in places if place.end - place.content > _BORDER * frame_size]
    starts = array("q", [0])
    for border in [*borders, size]:
        while border - starts[-1] > frame_size:
            starts.append(starts[-1] + frame_size)
        if border > starts[-1]:
            starts.append(border)
    return starts


def _check(recipe: Recipe, plan: StreamPlan) -> None:
    """Hold head and tree to the reader's own rules, so that no bundle is written that none would take."""
    for member in plan.members:
        if member.kind == "file" and not member.size and member.sha256 not in (None, EMPTY):
            raise DamagedError(f"{member.path} is empty, and its publisher's is not", hint="fetch it again")
        if member.kind == "file" and member.source is None:
            raise InputError(f"nothing says where {member.path} comes from")
    digests = {number: member.sha256 or EMPTY for number, member in enumerate(plan.members)}
    draft = msgspec.structs.replace(
        recipe.head, writer=current_writer(), tree=plan.tree(digests), stream_size=plan.size
    )
    validate.check_head(draft, "what is to be packed")


def stream_key(recipe: Recipe, plan: StreamPlan) -> str:
    """Return one digest of all that the volumes' bytes depend on; a pack goes on where it is the same.

    :raises InputError: a file that is to be packed isn't there.
    """
    digest = hashlib.sha256()
    writer = current_writer()
    facts = (manifests.FORMAT, writer.bundler, writer.libzstd)
    digest.update(repr((*facts, recipe.level, recipe.volume_size, recipe.frame_size)).encode())
    for member in plan.members:
        try:
            source = member.source.fingerprint if member.source else ""
        except OSError as problem:
            raise InputError(
                f"{member.path} can't be read: {problem.strerror}", where=problem.filename
            ) from problem
        row = (member.path, member.kind, member.size, member.executable, member.sha256, member.target, source)
        digest.update(repr(row).encode() + b"\n")
    for entry in plan.held:
        digest.update(repr(entry).encode() + b"\n")
    return digest.hexdigest()
