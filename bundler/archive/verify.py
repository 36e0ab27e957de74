"""Checking every byte of a bundle or of an installation, without changing anything."""

from __future__ import annotations

import hashlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bundler.archive import frames, sums
from bundler.archive.damage import Damage
from bundler.archive.media import SYSTEM
from bundler.archive.parity_advice import parity_names
from bundler.archive.parity_prospect import prospect
from bundler.archive.volume_check import check_volumes
from bundler.archive.volume_reader import crowds
from bundler.common.digest import sha256_of
from bundler.common.progress import SILENT
from bundler.common.threads import default_threads, in_order
from bundler.errors import BundlerError, DamagedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bundler.archive.bundle import Bundle
    from bundler.archive.layout import Frame
    from bundler.common.progress import Meter, Reporter
    from bundler.provenance import Provenance


_QUICK = (
    "SHA256SUMS against manifest and small files; each byte of the volumes against the BLAKE3 of its frame, "
    "which the manifest names"
)
_DEEP = (
    "SHA256SUMS against manifest and files; volumes against their sha256; frames against their BLAKE3; tar "
    "headers against the manifest; every file's content against its sha256"
)


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What a check covered; it found nothing wrong."""

    subject: str
    """The bundle's name, or the installation's folder."""
    files: int
    """Files whose content was compared, of a bundle by its frames or its sha256; in a quick check of an
    installation, whose size and time was."""
    bytes: int
    """Bytes that were read."""
    checked: str
    """What was compared with what, in one sentence."""
    waiting: tuple[str, ...] = ()
    """Volumes that weren't there, in a partial check; of an installation, those that an unpack waits for."""
    volumes: int = 0
    """Of a bundle: its volumes, here or not."""
    strangers: tuple[str, ...] = ()
    """Of a bundle: what lies in its folders and isn't the bundle's, a line each."""
    provenance: Provenance | None = None
    """Of a bundle: what is known of who made it."""


def verify_bundle(
    bundle: Bundle,
    *,
    threads: int | None = None,
    partial: bool = False,
    deep: bool = False,
    reporter: Reporter = SILENT,
) -> Verified:
    """Check every byte of a bundle in one read.

    Compared are the sums file with the manifest, the small files and the parity with the sums file, and each
    byte of the volumes, once, with the BLAKE3 of its frame: these the manifest names, over all cores.

    :param deep: compare, besides, each volume with its sha256, each header and each padding byte of the tar
        stream with the manifest's tree, and each file's content with its sha256: what packing could have got
        wrong, as nothing that happens to a disk can.
    :param threads: ``None``: one for each processor.
    :param partial: whether missing volumes are no fault.
    :raises MissingVolumeError: volumes missing, short or swapped.
    :raises DamagedError: naming all that differs.
    """
    try:
        return _verify(bundle, threads or default_threads(), partial, deep, reporter)
    except BundlerError as problem:
        if bundle.manifest.parity is not None and not partial:
            prospect(problem, bundle.folders, threads=threads, reporter=reporter)
        raise


def _verify(bundle: Bundle, threads: int, partial: bool, deep: bool, reporter: Reporter) -> Verified:
    check_volumes(bundle, partial=partial)
    findings = [*_check_sums(bundle), *_check_parity(bundle, partial, threads, reporter)]
    read = _check_streams if deep else _check_frames
    files, size, found = read(bundle, threads, reporter)
    findings += found
    if findings:
        raise DamagedError(
            f"{bundle.name} is damaged",
            where=", ".join(map(str, bundle.folders)),
            findings=_short(findings),
            hint="copy the named files again from where the bundle was packed",
        )
    return Verified(
        subject=bundle.name,
        files=files,
        bytes=size,
        checked=_DEEP if deep else _QUICK,
        waiting=tuple(bundle.missing),
        volumes=len(bundle.manifest.volumes),
        strangers=tuple(_strangers(bundle)),
        provenance=bundle.provenance,
    )


def _check_streams(bundle: Bundle, threads: int, reporter: Reporter) -> tuple[int, int, list[str]]:
    """Check all that can be; return the files, the bytes read, and what is wrong."""
    with reporter.phase("verify", bundle.manifest.stream_size) as meter:
        check = _StreamCheck(bundle, meter)
        found = check.run(threads)
    return check.files, check.bytes, found


def _check_frames(bundle: Bundle, threads: int, reporter: Reporter) -> tuple[int, int, list[str]]:
    """Compare each frame that is here with its BLAKE3; return files, bytes read, and what is wrong."""
    here = [frame for frame in bundle.layout.frames() if _volume_of(bundle, frame) in bundle.volumes]
    size = sum(frame.stored for frame in here)
    crowding = crowds(size)
    findings = []

    def check(frame: Frame) -> Damage | None:
        try:
            bundle.read(frame, frames.room("stored", frame.stored))
        except DamagedError as problem:
            return Damage(frame, problem.what)
        if crowding:
            bundle.forget(frame)
        return None

    with (
        reporter.phase("verify", size) as meter,
        closing(in_order(check, here, threads, "verify")) as results,
    ):
        for frame, damage in results:
            if damage:
                findings.append(damage.text(bundle))
            meter.advance(frame.stored)
    numbers = {frame.number for frame in here}
    files = sum(
        entry.kind == "file" and entry.offset >= 0 and numbers.issuperset(bundle.layout.of_file(number))
        for number, entry in enumerate(bundle.manifest.tree)
    )
    return files, size, findings


def _volume_of(bundle: Bundle, frame: Frame) -> str:
    return bundle.manifest.volumes[frame.volume].name


def _short(findings: list[str], most: int = 40) -> list[str]:
    return findings if len(findings) <= most else [*findings[:most], f"and {len(findings) - most} more"]


def _check_sums(bundle: Bundle) -> Iterator[str]:
    """Compare the sums file with the manifest, and the small files with the sums file."""
    volumes = {volume.name: volume.sha256 for volume in bundle.manifest.volumes}
    for name, digest in volumes.items():
        if bundle.sums.get(name) != digest:
            yield f"{sums.SUMS} and manifest.json differ about {name}"
    for name, digest in bundle.sums.items():
        if name in volumes or sums.is_parity(name):
            continue
        if sums.is_volume(name):
            yield f"{sums.SUMS} lists {name}, which the manifest doesn't"
        for folder in bundle.folders:
            yield from _check_small(folder / name, digest)


def _strangers(bundle: Bundle) -> Iterator[str]:
    """Name what lies in the bundle's folders and isn't its own: nobody vouches for it, nothing reads it."""
    for folder in bundle.folders:
        for name in sorted({child.name for child in folder.iterdir()} - SYSTEM - sums.UNLISTED):
            if name not in bundle.sums:
                yield f"{name} is not listed in {sums.SUMS} ({folder})"


def _check_parity(bundle: Bundle, partial: bool, threads: int, reporter: Reporter) -> Iterator[str]:
    """Compare the parity volumes with the sums file; like volumes, each lies in one folder at least."""
    names = parity_names(bundle)
    if sorted(names) != sorted(filter(sums.is_parity, bundle.sums)):
        yield f"{sums.SUMS} and manifest.json differ about the parity volumes"
    for file in bundle.manifest.parity.files if bundle.manifest.parity else ():
        if file.name not in bundle.sums:
            yield f"the parity covers {file.name}, which {sums.SUMS} doesn't list"
    places: dict[Path, str] = {}
    for name in names:
        there = [folder / name for folder in bundle.folders if (folder / name).is_file()]
        if name in bundle.sums and (there or not partial):
            places[there[0] if there else bundle.folders[0] / name] = bundle.sums[name]
    if not places:
        return
    size = sum(path.stat().st_size for path in places if path.is_file())
    with reporter.phase("verify parity", size) as meter:

        def check(path: Path) -> list[str]:
            return [*_check_small(path, places[path], meter.advance)]

        with closing(in_order(check, places, threads, "verify-parity")) as results:
            for _, found in results:
                yield from found


def _check_small(path: Path, digest: str, advance: Callable[[int], None] = lambda _: None) -> Iterator[str]:
    try:
        if sha256_of(path, advance) != digest:
            yield f"{path.name} differs from {sums.SUMS} ({path.parent})"
    except OSError as problem:
        yield f"{path.name} can't be read: {problem.strerror} ({path.parent})"


@dataclass
class _Content:
    """A frame that passed its own checks, on its way through the checks that go in the stream's order."""

    frame: Frame
    stored: bytearray
    content: bytearray | None
    """``None`` where the frame is damaged."""
    damage: Damage | None


@dataclass
class _StreamCheck:
    """Reads the frames in order: decompresses several at once, hashes files and volumes as they pass."""

    bundle: Bundle
    meter: Meter
    files: int = 0
    """Files whose content was compared."""
    bytes: int = 0
    """Bytes of volumes that were read."""
    findings: list[str] = field(default_factory=list)
    _spare: deque[bytearray] = field(default_factory=deque)

    def run(self, threads: int) -> list[str]:
        """Check the volumes that are there, and return what is wrong."""
        layout, manifest = self.bundle.layout, self.bundle.manifest
        numbers = [
            frame.number
            for frame in layout.frames()
            if manifest.volumes[frame.volume].name in self.bundle.volumes
        ]
        volumes, contents = _VolumeHasher(self.bundle), _ContentChecker(self.bundle)
        hashing = ThreadPoolExecutor(1, "volume-digest")
        checking = ThreadPoolExecutor(1, "content-digest")
        passing: deque[tuple[_Content, Future[None], Future[None]]] = deque()
        try:
            with closing(in_order(self._read, numbers, threads, "verify", ahead=threads + 2)) as results:
                for _, one in results:
                    passing.append(
                        (one, hashing.submit(volumes.feed, one), checking.submit(contents.feed, one))
                    )
                    while len(passing) > 2:
                        self._pass(*passing.popleft())
            while passing:
                self._pass(*passing.popleft())
        finally:
            hashing.shutdown(cancel_futures=True)
            checking.shutdown(cancel_futures=True)
        self.files = contents.files
        return self.findings + volumes.findings + contents.findings

    def _pass(self, one: _Content, hashed: Future[None], checked: Future[None]) -> None:
        hashed.result()
        checked.result()
        if one.damage:
            self.findings.append(one.damage.text(self.bundle))
        self._spare.append(one.stored)
        if one.content is not None:
            self._spare.append(one.content)
        self.bytes += one.frame.stored
        self.meter.advance(one.frame.raw)

    def _read(self, number: int) -> _Content:
        frame = self.bundle.layout.frame(number)
        stored = self._buffer(frame.stored)
        room = memoryview(stored)[: frame.stored]
        content = None
        try:
            self.bundle.read(frame, room)
            content = self._buffer(frame.raw)
            frames.decompress(room, memoryview(content)[: frame.raw])
        except DamagedError as problem:
            return _Content(frame, stored, None, Damage(frame, problem.what))
        return _Content(frame, stored, content, None)

    def _buffer(self, size: int) -> bytearray:
        """Return a buffer that was used before, if one is long enough."""
        try:
            buffer = self._spare.popleft()
        except IndexError:
            return bytearray(size)
        if len(buffer) < size:
            buffer.extend(bytes(size - len(buffer)))
        return buffer


class _VolumeHasher:
    """Hashes each volume as its frames pass, in order."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._hash = hashlib.sha256()
        self._left = 0
        self.findings: list[str] = []

    def feed(self, one: _Content) -> None:
        """Take the next frame."""
        volume = self._bundle.manifest.volumes[one.frame.volume]
        if one.frame.offset == 0:
            self._hash = hashlib.sha256()
        self._hash.update(memoryview(one.stored)[: one.frame.stored])
        if one.frame.offset + one.frame.stored == volume.size and self._hash.hexdigest() != volume.sha256:
            self.findings.append(f"{volume.name} differs from its sha256")


class _ContentChecker:
    """Compares the stream's fixed parts with the tree, and files' contents with their sha256, in order."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._hash = hashlib.sha256()
        self._hashed = 0
        self._file = -1
        self.files = sum(entry.kind == "file" and not entry.size for entry in bundle.manifest.tree)
        self.findings: list[str] = []

    def feed(self, one: _Content) -> None:
        """Take the next frame; after one that is missing or damaged, the file in it can't be judged."""
        if one.content is not None:
            content = memoryview(one.content)[: one.frame.raw]
            for name in self._bundle.layout.differences(one.frame, content):
                self.findings.append(f"the tar stream differs from the manifest at {name}")
        for piece in self._bundle.layout.slices(one.frame):
            entry = self._bundle.manifest.tree[piece.entry]
            if piece.at == 0:
                self._file, self._hashed, self._hash = piece.entry, 0, hashlib.sha256()
            if one.content is None or (self._file, self._hashed) != (piece.entry, piece.at):
                self._file = -1
                continue
            self._hash.update(memoryview(one.content)[piece.begin : piece.end])
            self._hashed += piece.end - piece.begin
            if self._hashed == entry.size:
                self.files += 1
                if self._hash.hexdigest() != entry.sha256:
                    self.findings.append(f"{entry.path} in the archive differs from its sha256")
