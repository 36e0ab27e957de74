"""From a hub to the disk: parallel by file, resumed, verified while it arrives, renamed when whole.

Beside the models, ``weights/.bundler`` holds what a fetch under way needs: partial files, the digests of
files that were verified, and the commit each model was pinned to.
"""

from __future__ import annotations

import os
import shutil
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from bundler.collect.models.transfer import Digests, StoppedError
from bundler.common.digest import BLOCK
from bundler.common.durable import sync_folder
from bundler.common.hashcache import HashCache
from bundler.errors import BundlerError, DamagedError, FetchError, PreflightError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bundler.collect.models.listing import ListedFile
    from bundler.collect.models.transfer import Remote
    from bundler.common.progress import Meter, Reporter

STATE = ".bundler"
"""The folder below ``weights`` for what is under way; never carried."""
SPARE = 64 << 20
"""Bytes that a fetch leaves free on the disk."""


def hash_cache(weights: Path) -> HashCache:
    """Return the digests of the files below ``weights`` that were verified before."""
    return HashCache(weights / STATE / "hashes.jsonl", weights)


@dataclass(frozen=True)
class Fetch:
    """One model's way to the disk."""

    remote: Remote
    name: str
    weights: Path
    cache: HashCache
    rehash: bool = False

    @property
    def folder(self) -> Path:
        """Where the model's files are at the end."""
        return self.weights / self.name

    def partial(self, file: ListedFile) -> Path:
        """Return where a file lies while it is incomplete."""
        return self.weights / STATE / "partial" / self.name / file.path

    def run(self, files: tuple[ListedFile, ...], reporter: Reporter, jobs: int) -> None:
        """Bring every file to the disk.

        :raises BundlerError: the first failure; what is whole or partly there is kept.
        """
        with self._alone():
            self._check_room(files)
            self._bring(files, reporter, jobs)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep a second bundler from writing the same files."""
        lock = FileLock(self.weights / STATE / f"{self.name}.lock", timeout=0)
        (self.weights / STATE).mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout as problem:
            raise FetchError(
                f"another bundler is fetching {self.name} at this moment",
                where=self.folder,
                hint="wait for it, or end it",
            ) from problem
        try:
            yield
        finally:
            lock.release()

    def _bring(self, files: tuple[ListedFile, ...], reporter: Reporter, jobs: int) -> None:
        done = sum(self._have(file) for file in files)
        total = sum(file.size for file in files)
        with reporter.phase(f"fetch {self.name}", total, done=done) as meter:
            self._in_parallel(files, meter, jobs)
        shutil.rmtree(self.weights / STATE / "partial" / self.name, ignore_errors=True)

    def _in_parallel(self, files: tuple[ListedFile, ...], meter: Meter, jobs: int) -> None:
        pool = ThreadPoolExecutor(max_workers=max(1, jobs), thread_name_prefix="fetch")
        futures: list[Future[None]] = [pool.submit(self._one, file, meter) for file in files]
        try:
            finished, _ = wait(futures, return_when=FIRST_EXCEPTION)
            failed = [future.exception() for future in finished if future.exception() is not None]
            if failed:
                raise _worst(failed)
        finally:
            self.remote.patience.stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            self.remote.patience.stop.clear()

    def _have(self, file: ListedFile) -> int:
        """Return the bytes of a file that an earlier run left."""
        for place in (self.folder / file.path, self.partial(file)):
            if place.is_file():
                return min(place.stat().st_size, file.size)
        return 0

    def _check_room(self, files: tuple[ListedFile, ...]) -> None:
        wanted = sum(file.size - self._have(file) for file in files)
        free = shutil.disk_usage(self.weights).free
        if wanted + SPARE > free and wanted:
            raise PreflightError(
                f"{self.name} wants {wanted / 1e9:.1f} GB more on this disk, "
                f"which has {free / 1e9:.1f} GB free",
                where=self.weights,
                hint="make room, make weights a link to a larger disk, or pack with --stream",
            )

    def _one(self, file: ListedFile, meter: Meter) -> None:
        target = self.folder / file.path
        if self._whole(file, target, meter):
            return
        for attempt in (1, 2):
            wrong = self._download(file, meter)
            if wrong is None:
                return
            if attempt == 1:
                meter.say(f"{file.path}: {wrong}; fetching it once more")
        raise DamagedError(
            f"{file.path} arrived twice with other bytes than the publisher promised",
            where=self.remote.where,
            hint="a proxy or mirror in between may alter it, or the hub's own listing is off: try later, "
            "or the model's other hub",
            findings=[str(wrong)],
        )

    def _whole(self, file: ListedFile, target: Path, meter: Meter) -> bool:
        """Return whether a file is there with the publisher's bytes; another file in its place is removed."""
        if not target.is_file():
            return False
        size = target.stat().st_size
        if size == file.size and self._same(file, target):
            return True
        meter.say(f"{file.path}: not the publisher's file, fetching it again")
        meter.advance(-min(size, file.size))
        target.unlink()
        return False

    def _same(self, file: ListedFile, target: Path) -> bool:
        known = None if self.rehash else self.cache.known(target)
        if known is not None and file.sha256 is not None:
            return known == file.sha256
        if known is not None and file.git_sha1 is None:
            return True
        digests = Digests(file)
        self._read_into(digests, target)
        if digests.wrong is None:
            self.cache.remember(target, digests.sha256)
        return digests.wrong is None

    def _read_into(self, digests: Digests, path: Path) -> int:
        """Digest a file; return its length."""
        block = bytearray(BLOCK)
        view = memoryview(block)
        length = 0
        with path.open("rb", buffering=0) as source:
            while count := source.readinto(block):
                if self.remote.patience.stop.is_set():
                    raise StoppedError
                digests.update(view[:count])
                length += count
        return length

    def _download(self, file: ListedFile, meter: Meter) -> str | None:
        """Fetch what is lacking of a file; return what is wrong with it, or ``None``."""
        partial = self.partial(file)
        partial.parent.mkdir(parents=True, exist_ok=True)
        digests = Digests(file)
        start = 0
        if partial.exists() and partial.stat().st_size <= file.size:
            start = self._read_into(digests, partial)
        with partial.open("r+b" if start else "wb") as sink:
            sink.seek(start)
            for piece in self.remote.pieces(file, start):
                sink.write(piece)
                digests.update(piece)
                meter.advance(len(piece))
            sink.flush()
            os.fsync(sink.fileno())
        if digests.wrong is not None:
            partial.unlink()
            meter.advance(-file.size)
            return digests.wrong
        target = self.folder / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.replace(target)
        sync_folder(target.parent)
        self.cache.remember(target, digests.sha256)
        return None


def _worst(failed: list[BaseException | None]) -> BaseException:
    """Return the failure to show: not that of a thread which was only told to stop."""
    real = [problem for problem in failed if problem is not None and not isinstance(problem, StoppedError)]
    known = [problem for problem in real if isinstance(problem, BundlerError)]
    return (known or real)[0]
