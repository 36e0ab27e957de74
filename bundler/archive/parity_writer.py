"""Making parity: a second pass over a bundle's finished files, which goes on where it was interrupted."""

from __future__ import annotations

import contextlib
import hashlib
import os
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from bundler.archive import sums
from bundler.archive.media import PARTIAL_SUFFIX, out_of_space, refused
from bundler.archive.parity import digest_of_piece, seal, unseal
from bundler.archive.parity_stripes import Pieces, threads_for
from bundler.archive.volume_reader import FileVolume
from bundler.common.disk_trouble import FULL
from bundler.common.durable import sync_folder
from bundler.common.threads import in_order
from bundler.errors import DamagedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from bundler.archive.media import Media
    from bundler.archive.parity import ParityGroup, ParityHeader
    from bundler.common.progress import Meter, Reporter

_SYNC = 64 * 2**20
"""Bytes of a parity volume after which they are made durable."""


def place_parity(media: Media, groups: Sequence[ParityGroup], header: int) -> dict[str, Path]:
    """Return the folder of each parity volume, and delete what isn't one of them.

    :param header: bytes that a header takes at most.
    :raises PreflightError: no disk has room for one.
    """
    sizes = {name: group.volume_size(header) for group in groups for name in group.names}
    _drop_others(media, sizes)
    promised = dict.fromkeys(media.folders, 0)
    places = {}
    for name, size in sizes.items():
        there = media.find(name)
        if there is not None:
            needed = max(0, size - there.stat().st_size)
            if there.name == name or media.room(there.parent) - promised[there.parent] >= needed:
                places[name] = there.parent
                promised[there.parent] += needed
                continue
            there.unlink()
        folder = next((one for one in media.folders if media.room(one) - promised[one] >= size), None)
        if folder is None:
            raise out_of_space(max(media.folders, key=media.room))
        places[name] = folder
        promised[folder] += size
    return places


def _drop_others(media: Media, names: Mapping[str, int]) -> None:
    for folder in media.folders:
        for child in folder.iterdir():
            name = child.name.removesuffix(PARTIAL_SUFFIX)
            if sums.is_parity(name) and name not in names:
                child.unlink()


def write_parity(
    groups: Sequence[ParityGroup],
    header: ParityHeader,
    sources: Mapping[str, Path],
    places: Mapping[str, Path],
    *,
    threads: int | None,
    reporter: Reporter,
) -> dict[str, str]:
    """Write all parity volumes, and return the sha256 of each by name.

    :param sources: each covered file's path, by name.
    :param places: the folder of each parity volume, as :func:`place_parity` gives it.
    :raises DamagedError: a covered file can't be read.
    :raises PreflightError: a disk takes no more; what is written is kept.
    """
    total = sum(file.size for group in groups for file in group.files)
    digests: dict[str, str] = {}
    with reporter.phase("parity", total) as meter:
        for group in groups:
            paths = [places[name] / name for name in group.names]
            with _space(paths[0].parent), ExitStack() as stack:
                volumes = [_open(path, stack) for path in paths]
                digests |= _write_group(group, header, sources, volumes, threads, meter)
                for volume in volumes:
                    volume.finish()
    return digests


class _ParityVolume:
    """A parity volume under way, under its partial name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._partial = path.with_name(path.name + PARTIAL_SUFFIX)
        if path.exists():
            path.rename(self._partial)
        self.file = os.open(self._partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self.digest = hashlib.sha256()
        self._unsynced = 0

    def close(self) -> None:
        os.close(self.file)

    def whole_records(self, group: ParityGroup, header: bytes, index: int) -> int:
        """Return how many records are there and sound: what an earlier run wrote."""
        if os.pread(self.file, len(header), 0) != header:
            return 0
        for number in range(group.stripes):
            record = os.pread(self.file, group.row + group.width(number), len(header) + group.record(number))
            row = unseal(record[: group.row])
            piece = record[group.row :]
            if len(piece) != group.width(number) or row is None:
                return number
            if row[len(group.files) + index] != digest_of_piece(piece):
                return number
        return group.stripes

    def keep(self, size: int) -> None:
        """Cut the file to its first bytes, and hash these."""
        os.ftruncate(self.file, size)
        os.lseek(self.file, 0, os.SEEK_SET)
        while data := os.read(self.file, 2**20):
            self.digest.update(data)

    def append(self, *parts: bytes) -> None:
        """Write at the end."""
        for part in parts:
            view = memoryview(part)
            while view:
                view = view[os.write(self.file, view) :]
            self.digest.update(part)
            self._unsynced += len(part)
        if self._unsynced >= _SYNC:
            os.fsync(self.file)
            self._unsynced = 0

    def finish(self) -> None:
        """Make it durable, and give it its name."""
        os.fsync(self.file)
        self._partial.rename(self.path)
        sync_folder(self.path.parent)


def _open(path: Path, stack: ExitStack) -> _ParityVolume:
    volume = _ParityVolume(path)
    stack.callback(volume.close)
    return volume


def _write_group(
    group: ParityGroup,
    header: ParityHeader,
    sources: Mapping[str, Path],
    volumes: Sequence[_ParityVolume],
    threads: int | None,
    meter: Meter,
) -> dict[str, str]:
    first = _go_on(group, header, volumes)
    meter.advance(sum(min(file.size, first * group.stripe) for file in group.files))
    with ExitStack() as stack:
        readers = [FileVolume(sources[file.name]) for file in group.files]
        for reader in readers:
            stack.callback(reader.close)

        def work(number: int) -> tuple[bytes, list[bytes]]:
            pieces = Pieces(group, number)
            for place, reader in enumerate(readers):
                pieces.read(place, reader)
            parity = pieces.encode()
            digests = [pieces.digest(place) for place in range(len(readers))]
            return seal([*digests, *map(digest_of_piece, parity)]), parity

        count = threads_for(group, threads, made=group.parity)
        todo = range(first, group.stripes)
        with closing(in_order(work, todo, count, "parity")) as made:
            for number, (row, parity) in made:
                for volume, piece in zip(volumes, parity, strict=True):
                    volume.append(row, piece)
                meter.advance(sum(file.piece(group.stripe, number) for file in group.files))
    return {volume.path.name: volume.digest.hexdigest() for volume in volumes}


def _go_on(group: ParityGroup, header: ParityHeader, volumes: Sequence[_ParityVolume]) -> int:
    """Cut the group's volumes to what all of them have, and return the stripe to go on with."""
    known = []
    headers = [header.encode(group.number * group.parity + index + 1) for index in range(group.parity)]
    for index, volume in enumerate(volumes):
        known.append(volume.whole_records(group, headers[index], index))
    first = min(known)
    for volume, beginning in zip(volumes, headers, strict=True):
        if first:
            end = group.volume_size(len(beginning))
            volume.keep(min(end, len(beginning) + group.record(first)))
        else:
            volume.keep(0)
            volume.append(beginning)
    return first


@contextlib.contextmanager
def _space(folder: Path) -> Iterator[None]:
    try:
        yield
    except DamagedError as problem:
        problem.hint = problem.hint or "look after the disk (dmesg), and run the same command again"
        raise
    except OSError as problem:
        if problem.errno in FULL:
            raise out_of_space(folder) from problem
        raise refused(problem, folder) from problem
