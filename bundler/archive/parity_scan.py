"""Finding the damaged pieces of a bundle with parity, by their digests, and whether parity can mend them."""

from __future__ import annotations

import errno
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

from bundler.archive.parity import digest_of_piece, unseal
from bundler.archive.parity_found import has_digest, read_header
from bundler.archive.parity_stripes import Pieces, threads_for
from bundler.archive.volume_reader import FileVolume
from bundler.common.threads import in_order
from bundler.errors import DamagedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bundler.archive.parity import ParityGroup
    from bundler.archive.parity_found import ProtectedBundle
    from bundler.common.progress import Meter, Reporter


_SHOWN = 20


class GroupFiles:
    """A group's files and parity volumes, to be read within ``with``: each has a place, the files' first."""

    def __init__(self, bundle: ProtectedBundle, group: ParityGroup) -> None:
        """Find what is there."""
        self.group, self.header = group, len(bundle.header)
        self.paths: list[Path | None] = [bundle.best(file) for file in group.files]
        for name in group.names:
            self.paths.append(next(iter(bundle.copies(name)), None))
        self.readers: list[FileVolume | None] = []
        self.strangers: set[int] = set()
        """The places of parity volumes that speak of another bundle's bytes."""

    def __enter__(self) -> GroupFiles:
        """Open what is there; a group at a time, for a process may have few files open."""
        self._stack = ExitStack()
        with ExitStack() as opened:
            self.readers = [self._open(place, opened) for place in range(len(self.paths))]
            self._stack = opened.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()
        self.readers = []

    def _open(self, place: int, opened: ExitStack) -> FileVolume | None:
        path = self.paths[place]
        if path is None or place in self.strangers:
            return None
        try:
            reader = FileVolume(path)
        except OSError as problem:
            if problem.errno in (errno.EMFILE, errno.ENFILE):
                raise
            return None
        opened.callback(reader.close)
        return reader

    def name(self, place: int) -> str:
        """Return a file's or a parity volume's name."""
        count = len(self.group.files)
        return self.group.files[place].name if place < count else self.group.names[place - count]

    def size(self, place: int) -> int:
        """Return how many bytes it must have."""
        count = len(self.group.files)
        return self.group.files[place].size if place < count else self.group.volume_size(self.header)

    def record(self, place: int, number: int) -> tuple[list[bytes], bytes] | None:
        """Return the digests and the parity of a stripe, or ``None`` where the record isn't sound.

        :param place: the parity volume's.
        :param number: the stripe's.
        """
        reader = self.readers[place]
        if reader is None or place in self.strangers:
            return None
        data = bytearray(self.group.row + self.group.width(number))
        try:
            reader.read_at(self.header + self.group.record(number), memoryview(data))
        except DamagedError:
            return None
        row, piece = unseal(bytes(data[: self.group.row])), bytes(data[self.group.row :])
        if row is None or row[place] != digest_of_piece(piece):
            return None
        return row, piece


@dataclass
class GroupScan:
    """What is wrong with a group."""

    files: GroupFiles
    bad: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """The places of the damaged pieces of each stripe that has any."""
    damaged: set[int] = field(default_factory=set)
    """The places of the files that aren't as they must be."""
    unproven: set[int] = field(default_factory=set)
    """Stripes whose parity is all damaged: nothing tells there whether the data are sound."""

    @property
    def group(self) -> ParityGroup:
        """The group."""
        return self.files.group

    def lost(self) -> Iterator[str]:
        """Say which damage is more than parity mends, one line for stripes in a row with the same damage."""
        beyond = [number for number, bad in sorted(self.bad.items()) if len(bad) > self.group.parity]
        runs = groupby(enumerate(beyond), lambda pair: (pair[1] - pair[0], self.bad[pair[1]]))
        for (_, places), run in runs:
            numbers = [number for _, number in run]
            begin = numbers[0] * self.group.stripe
            end = numbers[-1] * self.group.stripe + self.group.width(numbers[-1])
            names = ", ".join(self.files.name(place) for place in places[:10])
            more = f" and {len(places) - 10} more" if len(places) > 10 else ""
            counts = f"{len(places)} damaged, parity mends {self.group.parity}"
            yield f"bytes {begin} to {end} of {names}{more}: {counts}"


def scan(bundle: ProtectedBundle, *, threads: int | None, reporter: Reporter) -> list[GroupScan]:
    """Read all files once, and compare each piece with its digest.

    :param threads: ``None``: one for each processor.
    """
    scans = []
    total = sum(file.size for group in bundle.groups for file in group.files)
    with reporter.phase("scan", total) as meter:
        for group in bundle.groups:
            found = GroupScan(GroupFiles(bundle, group))
            scans.append(found)
            with found.files:
                _check_outside(bundle, found)
                _check_stripes(found, threads_for(group, threads), meter)
            _check_unproven(found)
    return scans


def refuse_lost(bundle: ProtectedBundle, scans: Sequence[GroupScan]) -> None:
    """Refuse a bundle in which more is damaged than parity can mend.

    :raises DamagedError: naming what is lost.
    """
    lost = [line for found in scans for line in found.lost()]
    if lost:
        names = sorted({name for found in scans for name in damaged_names(found)})
        raise DamagedError(
            f"{bundle.manifest.name} is damaged beyond what its parity can mend; nothing was written",
            where=", ".join(map(str, bundle.folders)),
            findings=lost if len(lost) <= _SHOWN else [*lost[:_SHOWN], f"and {len(lost) - _SHOWN} more"],
            hint=f"copy one or more of {', '.join(names[:_SHOWN])} again from where the bundle was packed; "
            "then the same command mends the rest",
        )


def damaged_names(found: GroupScan) -> list[str]:
    """Return the names of a group's damaged files."""
    return [found.files.name(place) for place in sorted(found.damaged)]


def _check_outside(bundle: ProtectedBundle, found: GroupScan) -> None:
    """Check sizes, and that parity volumes are this bundle's."""
    files, first = found.files, len(found.group.files)
    for place in range(found.group.pieces):
        reader, path = files.readers[place], files.paths[place]
        if reader is None or reader.size() != files.size(place):
            found.damaged.add(place)
        if reader is not None and path is not None and place >= first:
            header = read_header(path)
            if header != bundle.header:
                found.damaged.add(place)
            if header is not None and header != bundle.header:
                files.strangers.add(place)


def _check_stripes(found: GroupScan, threads: int, meter: Meter) -> None:
    group = found.group

    def work(number: int) -> tuple[tuple[int, ...], bool]:
        return _bad_pieces(found.files, number)

    with closing(in_order(work, range(group.stripes), threads, "scan")) as results:
        for number, (bad, proven) in results:
            if bad:
                found.bad[number] = bad
                found.damaged.update(bad)
            if not proven:
                found.unproven.add(number)
            meter.advance(sum(file.piece(group.stripe, number) for file in group.files))


def _bad_pieces(files: GroupFiles, number: int) -> tuple[tuple[int, ...], bool]:
    """Return the places of a stripe's damaged pieces, and whether there was anything to tell by."""
    group = files.group
    count = len(group.files)
    records = {place: files.record(place, number) for place in range(count, group.pieces)}
    bad = [place for place, record in records.items() if record is None]
    row = next((record[0] for record in records.values() if record is not None), None)
    pieces = Pieces(group, number)
    lost = []
    for place in range(count):
        try:
            pieces.read(place, files.readers[place])
        except DamagedError:
            lost.append(place)
            continue
        if row is not None and pieces.digest(place) != row[place]:
            lost.append(place)
    return (*lost, *bad), row is not None


def _check_unproven(found: GroupScan) -> None:
    """Where a stripe's digests are all lost, whole files must show by their sha256 that they are sound."""
    if not found.unproven:
        return
    count = len(found.group.files)
    parity = tuple(range(count, found.group.pieces))
    for place, file in enumerate(found.group.files):
        path = found.files.paths[place]
        if place not in found.damaged and path is not None and not has_digest(path, file.sha256):
            found.damaged.add(place)
            for number in found.unproven:
                if file.piece(found.group.stripe, number):
                    bad = set(found.bad.get(number, parity)) | {place}
                    found.bad[number] = tuple(sorted(bad))
