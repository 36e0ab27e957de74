"""``copy``: a finished bundle onto disks, in order, each file read back from the disk that took it."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bundler.archive import sums
from bundler.archive.media import PARTIAL_SUFFIX, refused
from bundler.common.broken import BROKEN_JSON
from bundler.common.digest import sha256_of
from bundler.common.durable import make_folder, sync_folder, write_atomically
from bundler.common.units import size_text
from bundler.errors import DamagedError, DestinationError, MissingVolumeError, PartialError, PreflightError
from bundler.work.plan import FAT_FILE, file_system

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bundler.archive.bundle import Bundle
    from bundler.common.progress import Meter, Reporter

BLOCK = 8 * 2**20
"""Bytes read and written at once."""
SPARE = 2**20
"""Bytes that a disk keeps free."""


@dataclass(frozen=True)
class BundleFile:
    """One file of the bundle, where it is read from."""

    path: Path
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """Its name in the bundle's folder."""
        return self.path.name


@dataclass(frozen=True, kw_only=True)
class CopyOptions:
    """What the user chose besides bundle and disks."""

    each: bool = False
    """The whole bundle on each disk, instead of once over all of them."""
    ask: Callable[[Path, int], bool] | None = None
    """Asks for the next disk in the place of a full one, with the number of volumes that wait; false: not
    now. Without it all disks must be there."""
    in_turn: bool = False
    """Disks are changed in one drive: what doesn't fit waits for the next."""
    again: bool = False
    """Forget what disks took that were copied to and changed before."""
    reporter: Reporter


@dataclass
class Disk:
    """A disk's folder for the bundle, and what it will take."""

    root: Path
    name: str
    """The bundle's."""
    volumes: list[BundleFile] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """The bundle's own folder on it."""
        return self.root / self.name

    def holds(self, file: BundleFile) -> bool:
        """Say whether a file is here: it gets its name when it was read back."""
        path = self.folder / file.name
        return path.is_file() and path.stat().st_size == file.size

    def waiting(self, files: Sequence[BundleFile]) -> int:
        """Return the bytes of files that aren't here yet."""
        return sum(file.size for file in files if not self.holds(file))

    def room(self, small: Sequence[BundleFile]) -> int:
        """Return the bytes that it takes besides small files and what it was chosen for."""
        return shutil.disk_usage(self.root).free - SPARE - self.waiting([*small, *self.volumes])


def copy_bundle(bundle: Bundle, disks: Sequence[Path], options: CopyOptions) -> list[Disk]:
    """Copy a bundle, sync it, and read it back; run again, it goes on.

    :returns: the disks with the volumes that each holds now.
    :raises MissingVolumeError: not all of the bundle is here.
    :raises PreflightError: it doesn't fit, or a file is larger than a disk's file system takes.
    :raises DestinationError: a disk can't be written to, or holds another bundle of that name.
    :raises DamagedError: a file isn't what ``SHA256SUMS`` says, or a disk gives back something else.
    :raises PartialError: the next disk is needed.
    """
    small, volumes = _files(bundle)
    places = [Disk(root, bundle.name) for root in disks]
    for place in places:
        _check(place, [*small, *volumes], bundle)
    if options.each:
        _choose_each(places, small, volumes)
        for place in places:
            _fill(place, small, bundle, options.reporter)
        return places
    return _spread(bundle, places, small, volumes, options)


def _files(bundle: Bundle) -> tuple[list[BundleFile], list[BundleFile]]:
    """Return the small files, ``SHA256SUMS`` last, and the volumes in order."""
    found, missing = [], []
    for name, digest in sorted(bundle.sums.items()):
        path = next((one / name for one in bundle.folders if (one / name).is_file()), None)
        if path is None:
            missing.append(name)
        else:
            found.append(BundleFile(path, path.stat().st_size, digest))
    if missing:
        raise MissingVolumeError(
            f"not all of {bundle.name} is here",
            where=", ".join(map(str, bundle.folders)),
            findings=missing,
            hint="name every folder that holds a part of it: bundler copy FOLDER1 FOLDER2 DISK…",
        )
    for name in (sums.LOG, sums.SIGNATURE, sums.SUMS):
        path = bundle.folders[0] / name
        if path.is_file():
            found.append(BundleFile(path, path.stat().st_size, sha256_of(path)))
    volumes = [one for one in found if sums.is_volume(one.name) or sums.is_parity(one.name)]
    return [one for one in found if one not in volumes], volumes


def _check(disk: Disk, files: Sequence[BundleFile], bundle: Bundle) -> None:
    """Refuse a disk that can't take the bundle, before anything is written."""
    if not disk.root.is_dir() or not os.access(disk.root, os.W_OK | os.X_OK):
        hint = "mount it, and name the folder where it is mounted"
        raise DestinationError("this is no folder that can be written to", where=disk.root, hint=hint)
    there = disk.folder / sums.SUMS
    if there.is_file() and there.read_bytes() != bundle.sums_data:
        raise DestinationError(
            f"the disk holds another bundle called {disk.name}",
            where=disk.folder,
            hint="remove that folder, or take another disk",
        )
    largest = max(file.size for file in files)
    if largest > FAT_FILE and file_system(disk.root) in ("vfat", "msdos"):
        raise PreflightError(
            f"the disk is formatted as FAT32, which takes no file of 4 GiB; one has {size_text(largest)}",
            where=disk.root,
            hint="format it as exFAT or ext4, or pack with --volume-size 3900MiB",
        )


def _choose_each(disks: Sequence[Disk], small: Sequence[BundleFile], volumes: list[BundleFile]) -> None:
    short = []
    for disk in disks:
        room, wanted = disk.room(small), disk.waiting(volumes)
        disk.volumes = volumes
        if wanted > room:
            short.append(f"{disk.root}: {size_text(wanted)} are to be written, {size_text(room)} fit")
    if short:
        raise PreflightError(
            "a disk is too small for the whole bundle",
            findings=short,
            hint="leave out --each: the bundle is spread over the disks",
        )


def _spread(
    bundle: Bundle,
    disks: list[Disk],
    small: list[BundleFile],
    volumes: list[BundleFile],
    options: CopyOptions,
) -> list[Disk]:
    gone = _Gone.of(bundle)
    if options.again or not options.in_turn:
        gone.forget()
    here = {one.name for one in volumes for disk in disks if disk.holds(one)}
    if elsewhere := gone.volumes - here:
        options.reporter.say(
            f"going on: {len(elsewhere)} of {len(volumes)} volumes are on disks copied before (--again: anew)"
        )
    waiting = _choose(disks, small, [one for one in volumes if one.name not in elsewhere])
    if waiting and not options.in_turn:
        raise PreflightError(
            f"the disks are too small: {len(waiting)} of {len(volumes)} volumes, "
            f"{size_text(sum(one.size for one in waiting))}, find no room",
            where=", ".join(str(disk.root) for disk in disks),
            hint="name one more disk; with one drive and disks that are changed: --in-turn",
        )
    filled = []
    while True:
        for disk in disks:
            _fill(disk, small, bundle, options.reporter)
            filled.append(disk)
        if not waiting:
            gone.forget()
            return filled
        gone.add(volume.name for disk in disks for volume in disk.volumes)
        disks = [_next_disk(bundle, disks[-1], waiting, gone, options)]
        _check(disks[0], [*small, *volumes], bundle)
        before = len(waiting)
        waiting = _choose(disks, small, waiting)
        if len(waiting) == before:
            hint = "take a disk with more room; the same command goes on"
            raise PreflightError("not one volume fits on this disk", where=disks[0].root, hint=hint)


def _choose(
    disks: Sequence[Disk], small: Sequence[BundleFile], volumes: Sequence[BundleFile]
) -> list[BundleFile]:
    """Give each volume to the disk that holds it, else to the first with room; return those left over."""
    left, turn = [], 0
    for volume in volumes:
        holder = next((disk for disk in disks if disk.holds(volume)), None)
        while holder is None and turn < len(disks) and disks[turn].room(small) < volume.size:
            turn += 1
        if holder is None and turn < len(disks):
            holder = disks[turn]
        if holder is None:
            left.append(volume)
        else:
            holder.volumes.append(volume)
    return left


def _next_disk(
    bundle: Bundle, full: Disk, waiting: Sequence[BundleFile], gone: _Gone, options: CopyOptions
) -> Disk:
    """Ask for another disk in the place of the full one.

    :raises PartialError: it doesn't come now.
    """
    while options.ask is not None and options.ask(full.root, len(waiting)):
        there = {path.name for path in full.folder.glob("*")} if full.folder.is_dir() else set()
        if not there & gone.volumes:
            return Disk(full.root, bundle.name)
        options.reporter.say(f"{full.root} still holds the disk that is full")
    raise PartialError(
        f"the disk is full; {len(waiting)} volumes wait for the next",
        where=full.root,
        findings=[one.name for one in waiting[:3]] + (["…"] if len(waiting) > 3 else []),
        hint="put the next disk in its place and run the same command: it goes on",
    )


def _fill(disk: Disk, small: Sequence[BundleFile], bundle: Bundle, reporter: Reporter) -> None:
    """Copy what a disk is to hold, volumes first and the sums last, and say on it what it holds."""
    files = [one for one in (*disk.volumes, *small) if not disk.holds(one)]
    here = len(disk.volumes) + len(small) - len(files)
    if here:
        reporter.say(f"{disk.root}: going on, {here} files are there")
    make_folder(disk.folder)
    # Each byte is written, and then read back.
    with reporter.phase(f"copy to {disk.root}", 2 * sum(one.size for one in files)) as meter:
        for file in files:
            _copy(file, disk.folder / file.name, meter)
    text = "\n".join(_contents(disk, bundle)) + "\n"
    write_atomically(disk.root / f"{disk.name}.contents.txt", text.encode())


def _contents(disk: Disk, bundle: Bundle) -> Iterator[str]:
    """Say what lies on a disk, for whoever finds it."""
    whole = [*bundle.manifest.volumes]
    held = sum(one.size for one in disk.volumes)
    yield f"{bundle.name}, a bundle of bundler's, in the folder {disk.name}."
    yield f"sha256 of SHA256SUMS: {hashlib.sha256(bundle.sums_data).hexdigest()}"
    yield f"The whole of it: {len(whole)} volumes, {size_text(sum(one.size for one in whole))}."
    yield f"On this disk: {len(disk.volumes)} files with {size_text(held)}:"
    yield from (f"  {one.name}" for one in disk.volumes)
    yield f"README.txt in that folder says how it is unpacked; sha256sum -c {sums.SUMS} checks what is here."


def _copy(file: BundleFile, target: Path, meter: Meter) -> None:
    """Copy one file, make it durable, read it back from the disk, and only then give it its name."""
    partial = target.with_name(target.name + PARTIAL_SUFFIX)
    try:
        if _write(file, partial, meter) != file.sha256:
            partial.unlink()
            raise DamagedError(
                f"{file.name} is not what {sums.SUMS} says",
                where=file.path,
                hint="bundler verify names all that is damaged; copy that file again, or bundler repair",
            )
        if _read_back(partial, meter) != file.sha256:
            partial.unlink()
            raise DamagedError(
                f"the disk gave back other bytes of {file.name} than it was given",
                where=target,
                hint="take another disk: this one, its cable or its port is failing",
            )
        partial.replace(target)
        sync_folder(target.parent)
    except OSError as problem:
        if problem.filename == str(file.path):
            raise DamagedError(f"{file.name} can't be read: {problem.strerror}", where=file.path) from problem
        raise refused(problem, target.parent) from problem


def _write(file: BundleFile, partial: Path, meter: Meter) -> str:
    """Write a file's bytes durably; return the sha256 of what was read."""
    digest = hashlib.sha256()
    with file.path.open("rb", buffering=0) as source, partial.open("wb", buffering=0) as output:
        while True:
            try:
                block = source.read(BLOCK)
            except OSError as problem:
                problem.filename = str(file.path)
                raise
            if not block:
                break
            digest.update(block)
            view = memoryview(block)
            while view:
                view = view[output.write(view) :]
            meter.advance(len(block))
        os.fsync(output.fileno())
        # What the kernel keeps of it would be read back from memory.
        os.posix_fadvise(output.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return digest.hexdigest()


def _read_back(path: Path, meter: Meter) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(BLOCK):
            digest.update(block)
            meter.advance(len(block))
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return digest.hexdigest()


@dataclass
class _Gone:
    """The volumes on disks that were taken out, remembered until the whole bundle is copied."""

    path: Path
    volumes: set[str]

    @classmethod
    def of(cls, bundle: Bundle) -> _Gone:
        home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        path = home / "bundler" / f"copy-{hashlib.sha256(bundle.sums_data).hexdigest()[:16]}.json"
        try:
            return cls(path, msgspec.json.decode(path.read_bytes(), type=set[str]))
        except (OSError, *BROKEN_JSON):
            return cls(path, set())

    def add(self, names: Iterator[str]) -> None:
        self.volumes.update(names)
        write_atomically(self.path, msgspec.json.encode(sorted(self.volumes)))

    def forget(self) -> None:
        self.volumes.clear()
        self.path.unlink(missing_ok=True)
