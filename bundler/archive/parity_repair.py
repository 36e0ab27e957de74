"""Mending a bundle by its parity: written beside, checked, made durable, and only then put in place."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bundler.archive import sums
from bundler.archive.media import PARTIAL_SUFFIX
from bundler.archive.parity import digest_of_piece, seal
from bundler.archive.parity_found import find_protected, has_digest
from bundler.archive.parity_scan import damaged_names, refuse_lost, scan
from bundler.archive.parity_stripes import Pieces, threads_for
from bundler.common.digest import sha256_of
from bundler.common.disk_trouble import REFUSALS
from bundler.common.durable import make_folder, open_plain, read_plain, sync_folder, write_atomically
from bundler.common.progress import SILENT
from bundler.common.threads import in_order
from bundler.common.units import size_text
from bundler.errors import DamagedError, DestinationError, PreflightError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bundler.archive.parity_found import ProtectedBundle
    from bundler.archive.parity_scan import GroupScan
    from bundler.common.progress import Meter, Reporter


@dataclass(frozen=True, kw_only=True)
class Repaired:
    """A bundle that is as it was packed."""

    name: str
    folders: tuple[str, ...]
    """Where it lies now."""
    damaged: tuple[str, ...]
    """The files that were damaged or missing, by name."""
    written: int
    """Bytes that were written."""


def repair_bundle(
    folders: Sequence[Path],
    to: Path | None = None,
    *,
    threads: int | None = None,
    reporter: Reporter = SILENT,
) -> Repaired:
    """Mend a bundle, or write a sound one to another folder.

    Nothing that is there is touched before all of a group's files are mended and checked: interrupted, the
    same command goes on.

    :param folders: where the bundle lies.
    :param to: a new or empty folder, or one that an interrupted repair wrote to; ``None``: in place.
    :param threads: ``None``: one for each processor.
    :raises DamagedError: more is damaged than parity can mend; nothing was written.
    :raises InputError: no bundle, or one without parity.
    :raises PreflightError: too little space, or a medium that can't be written to.
    :raises DestinationError: ``to`` holds other things.
    """
    bundle = find_protected(folders)
    with _alone(folders[0]):
        scans = scan(bundle, threads=threads, reporter=reporter)
        refuse_lost(bundle, scans)
        with _disk(to or folders[0]):
            return _Repair(bundle, scans, to, threads).run(reporter)


_SHOWN = 20


class _Repair:
    """One run."""

    def __init__(
        self, bundle: ProtectedBundle, scans: Sequence[GroupScan], to: Path | None, threads: int | None
    ) -> None:
        self._bundle, self._scans, self._to, self._threads = bundle, scans, to, threads
        self._homes = [to] if to else list(bundle.folders)
        self._written = 0
        self._damaged = [name for found in scans for name in damaged_names(found)]
        self._parity: dict[str, str] = {}

    def run(self, reporter: Reporter) -> Repaired:
        """Mend groups one after the other, then what lies in every folder."""
        if self._to:
            _check_destination(self._bundle, self._to)
        plans = [self._targets(found) for found in self._scans]
        self._check_space(plans)
        total = sum(found.files.size(p) for found, plan in zip(self._scans, plans, strict=True) for p in plan)
        with reporter.phase("mend", total) as meter:
            for found, targets in zip(self._scans, plans, strict=True):
                self._mend(found, targets, meter)
        self._finish_small()
        return Repaired(
            name=self._bundle.manifest.name,
            folders=tuple(map(str, self._homes)),
            damaged=tuple(sorted(self._damaged)),
            written=self._written,
        )

    def _targets(self, found: GroupScan) -> dict[int, Path]:
        """Return where each file of a group that is to be written goes, by its place."""
        if self._to is None:
            return {place: self._home(found, place) for place in sorted(found.damaged)}
        targets = {}
        for place in range(found.group.pieces):
            path = self._to / found.files.name(place)
            # An interrupted repair has checked what has its own name, all but its parity by their digests.
            if place >= len(found.group.files) or not has_digest(path, found.group.files[place].sha256):
                targets[place] = path
        return targets

    def _home(self, found: GroupScan, place: int) -> Path:
        path = found.files.paths[place]
        if path is not None:
            return path
        roomy = max(self._bundle.folders, key=lambda folder: shutil.disk_usage(folder).free)
        return roomy / found.files.name(place)

    def _check_space(self, plans: Sequence[dict[int, Path]]) -> None:
        needed: dict[Path, int] = {}
        for found, targets in zip(self._scans, plans, strict=True):
            for place, path in targets.items():
                needed[path.parent] = needed.get(path.parent, 0) + found.files.size(place)
        for folder, size in needed.items():
            free = shutil.disk_usage(folder).free
            if size > free:
                raise PreflightError(
                    f"mending takes {size_text(size)} beside what is there, and {size_text(free)} are free",
                    where=folder,
                    hint="free some space, or write the sound bundle to another disk: "
                    f"bundler repair {' '.join(map(str, self._bundle.folders))} --to FOLDER",
                )

    def _mend(self, found: GroupScan, targets: dict[int, Path], meter: Meter) -> None:
        """Write a group's files beside, and put them in place when all are checked."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(found.files)
            outputs = {place: stack.enter_context(_Output(path)) for place, path in targets.items()}
            for place, output in outputs.items():
                if place >= len(found.group.files):
                    number = found.group.number * found.group.parity + place - len(found.group.files) + 1
                    output.write(self._bundle.header.encode(number))
            self._write_stripes(found, outputs, meter)
            for place, file in enumerate(found.group.files):
                if place in outputs and outputs[place].digest.hexdigest() != file.sha256:
                    raise DamagedError(
                        f"{file.name} can't be mended: what parity makes of it differs from its sha256",
                        where=targets[place],
                        hint="copy it again from where the bundle was packed, and run the same command; as "
                        f"they were are {', '.join(damaged_names(found)[:_SHOWN])}",
                    )
            for output in outputs.values():
                output.sync()
            for place, output in outputs.items():
                output.place()
                self._written += found.files.size(place)
        for place in range(len(found.group.files), found.group.pieces):
            path = targets.get(place) or found.files.paths[place]
            assert path is not None  # it was there, or has just been written
            known = outputs.get(place)
            self._parity[path.name] = known.digest.hexdigest() if known else sha256_of(path)

    def _write_stripes(self, found: GroupScan, outputs: dict[int, _Output], meter: Meter) -> None:
        if not outputs:
            return
        places = sorted(outputs)

        def work(number: int) -> list[bytes]:
            return _rebuild(found, number, places)

        threads = threads_for(found.group, self._threads, made=len(places))
        # One thread reads on only when what it made is being written.
        ahead = threads if threads == 1 else 2 * threads
        with closing(in_order(work, range(found.group.stripes), threads, "mend", ahead=ahead)) as results:
            for _, made in results:
                for place, data in zip(places, made, strict=True):
                    outputs[place].write(data)
                    meter.advance(len(data))

    def _finish_small(self) -> None:
        """Bring manifest, sums and companions into each folder that lacks them or has other ones."""
        listed = sums.render({**self._bundle.digests, **self._parity})
        assert self._bundle.manifest.parity is not None
        for home in self._homes:
            for file in self._bundle.manifest.parity.files:
                self._bring(file.name, home)
            self._keep(home / sums.MANIFEST, self._bundle.header.manifest)
            self._keep(home / sums.SUMS, listed)
            if self._to:
                for name in (sums.SIGNATURE, sums.LOG):
                    # One that is no small file can't be what it is called, and is left behind.
                    with contextlib.suppress(OSError, IndexError):
                        data = read_plain(self._bundle.copies(name)[0], sums.LARGEST_SUMS)
                        self._keep(home / name, data)
            self._drop_leftovers(home)

    def _bring(self, name: str, home: Path) -> None:
        digest = self._bundle.digests[name]
        if has_digest(home / name, digest):
            return
        source = next(path for path in self._sources(name) if has_digest(path, digest))
        with _Output(home / name) as output, os.fdopen(open_plain(source), "rb") as file:
            while data := file.read(2**20):
                output.write(data)
            output.sync()
            output.place()
        self._written += source.stat().st_size
        self._damaged.append(name)

    def _sources(self, name: str) -> Iterator[Path]:
        yield from self._bundle.copies(name)
        if self._to:
            yield self._to / name

    def _keep(self, path: Path, data: bytes) -> None:
        try:
            if read_plain(path, len(data)) == data:
                return
        except OSError:
            pass
        write_atomically(path, data)
        self._written += len(data)
        if not self._to:
            self._damaged.append(path.name)

    def _drop_leftovers(self, home: Path) -> None:
        """Delete what a killed repair left beside."""
        names = {*self._bundle.digests, *self._parity}
        for path in home.glob("*" + PARTIAL_SUFFIX):
            if path.name.removesuffix(PARTIAL_SUFFIX) in names:
                path.unlink()


def _rebuild(found: GroupScan, number: int, places: Sequence[int]) -> list[bytes]:
    """Return what the files at some places must hold in a stripe: pieces of data, records of parity."""
    files, group = found.files, found.group
    count = len(group.files)
    bad = found.bad.get(number, ())
    records = {place: files.record(place, number) for place in range(count, group.pieces) if place not in bad}
    sound = {place: record for place, record in records.items() if record is not None}
    pieces = Pieces(group, number)
    lost = [place for place in bad if place < count]
    rebuilt_parity = any(place >= count and place not in sound for place in places)
    for place in range(count):
        if place not in lost and (lost or rebuilt_parity or place in places):
            pieces.read(place, files.readers[place])
    if len(lost) > len(sound):
        raise DamagedError(
            "the medium gives other bytes than a moment ago",
            where=", ".join(str(path.parent) for path in files.paths[:1] if path),
            hint="copy the bundle to another disk, and mend it there",
        )
    pieces.decode(lost, {place: record[1] for place, record in sound.items()})
    parity = {place: record[1] for place, record in sound.items()}
    row = next((record[0] for record in sound.values()), None)
    if rebuilt_parity:
        made = pieces.encode()
        parity = {count + index: piece for index, piece in enumerate(made)}
        if row is None:
            row = [*(pieces.digest(place) for place in range(count)), *map(digest_of_piece, made)]
    head = seal(row) if row is not None else b""
    return [bytes(pieces.data(place)) if place < count else head + parity[place] for place in places]


class _Output:
    """A file that is written beside, and left without a trace unless it is put in place."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(path.name + PARTIAL_SUFFIX)
        self.digest = hashlib.sha256()

    def __enter__(self) -> _Output:
        self._file = self._partial.open("wb")
        return self

    def write(self, data: bytes) -> None:
        """Append."""
        self._file.write(data)
        self.digest.update(data)

    def sync(self) -> None:
        """Make the bytes durable."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def place(self) -> None:
        """Give it its name, in the place of what had it."""
        self._partial.replace(self._path)
        if self._path.suffix == ".sh":
            # FAT has no modes.
            with contextlib.suppress(OSError):
                self._path.chmod(0o755)
        sync_folder(self._path.parent)

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        self._partial.unlink(missing_ok=True)


def _check_destination(bundle: ProtectedBundle, folder: Path) -> None:
    """Refuse a folder that holds other things than an interrupted repair left there."""
    make_folder(folder)
    if any(folder.samefile(home) for home in bundle.folders):
        raise DestinationError(
            "--to names the bundle's own folder", where=folder, hint="leave --to out to mend it in place"
        )
    names = {*bundle.digests, *sums.UNLISTED, *(name for group in bundle.groups for name in group.names)}
    others = sorted({path.name.removesuffix(PARTIAL_SUFFIX) for path in folder.iterdir()} - names)
    if others:
        raise DestinationError(
            f"the folder for the sound bundle holds other things: {', '.join(others[:5])}",
            where=folder,
            hint="name a new or empty folder",
        )


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep a second repair of the same bundle out."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as problem:
        raise DestinationError(
            "another bundler is mending this bundle", where=folder, hint="wait until it is done, or end it"
        ) from problem
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """Turn what a disk refuses into a message."""
    try:
        yield
    except OSError as problem:
        if problem.errno in REFUSALS:
            raise PreflightError(
                f"the mended bundle can't be written: {problem.strerror}",
                where=problem.filename or folder,
                hint="write it to another disk with --to FOLDER; the bundle here is as it was",
            ) from problem
        raise
