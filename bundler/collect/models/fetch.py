"""From a hub to the disk: parallel by file, resumed, verified while it arrives, renamed when whole.

Beside the models, ``weights/.bundler`` holds what a fetch under way needs: partial files, the digests of
files that were verified, and the commit each model was pinned to.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from bundler.collect.download import Wanted, check_room, feed, receive
from bundler.collect.ranges import connections_each
from bundler.common.durable import locked
from bundler.common.hashcache import HashCache
from bundler.common.threads import each
from bundler.common.units import size_text
from bundler.errors import FetchError

if TYPE_CHECKING:
    import threading
    from pathlib import Path

    from bundler.collect.models.listing import ListedFile
    from bundler.collect.models.remote import Remote
    from bundler.common.progress import Meter, Reporter

STATE = ".bundler"
"""The folder below ``weights`` for what is under way; never carried."""


def hash_cache(weights: Path) -> HashCache:
    """Return the digests of the files below ``weights`` that were verified before."""
    return HashCache(weights / STATE / "hashes.jsonl", weights)


@dataclass(frozen=True)
class ModelFetch:
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

    @property
    def _growing(self) -> Path:
        return self.weights / STATE / "partial" / self.name

    def run(self, files: tuple[ListedFile, ...], reporter: Reporter, jobs: int) -> None:
        """Bring every file to the disk; after a failure, what is whole or partly there is kept."""
        (self.weights / STATE).mkdir(parents=True, exist_ok=True)
        with locked(self.weights / STATE / f"{self.name}.lock", self._busy):
            size, done = sum(file.size for file in files), sum(self._have(file) for file in files)
            hint = "make room, make weights a link to a larger disk, or pack with --stream"
            check_room(self.weights, size - done, self.name, hint)
            if 0 < done < size:
                reporter.say(
                    f"{self.name}: going on: {size_text(done)} of {size_text(size)} are here already"
                )
            with reporter.phase(f"fetch {self.name}", size, done=done) as meter:
                self._bring(files, meter, jobs)
            shutil.rmtree(self._growing, ignore_errors=True)

    def _busy(self) -> NoReturn:
        """Keep a second bundler from writing the same files."""
        raise FetchError(
            f"another bundler is fetching {self.name} at this moment",
            where=self.folder,
            hint="wait for it, or end it",
        )

    def _bring(self, files: tuple[ListedFile, ...], meter: Meter, jobs: int) -> None:
        connections = connections_each((file.size - self._have(file) for file in files), jobs)

        def one(file: ListedFile, stop: threading.Event) -> None:
            counted = self._have(file)
            if not self._whole(file, meter):
                network = self.remote.network
                wanted = self._wanted(file)
                digest = receive(
                    wanted,
                    [self.remote.origin(file.path)],
                    meter.advance,
                    stop=network.stop,
                    counted=counted,
                    connections=connections,
                    patience=self.remote.patience,
                    say=meter.say,
                )
                self.cache.remember(wanted.path, digest)

        for _ in each(one, files, threads=max(1, jobs), on_stop=self.remote.network.interrupt):
            pass

    def _wanted(self, file: ListedFile) -> Wanted:
        return Wanted(
            self.folder / file.path,
            sha256=file.sha256,
            size=file.size,
            git_sha1=file.git_sha1,
            growing=self._growing / file.path,
            name=file.path,
        )

    def _have(self, file: ListedFile) -> int:
        """Return the bytes of a file that an earlier run left."""
        for place in (self.folder / file.path, self._growing / file.path):
            if place.is_file():
                return min(place.stat().st_size, file.size)
        return 0

    def _whole(self, file: ListedFile, meter: Meter) -> bool:
        """Return whether a file is there with the publisher's bytes; another file in its place is removed."""
        target = self.folder / file.path
        if not target.is_file():
            return False
        if target.stat().st_size == file.size and self._same(file, target):
            return True
        meter.say(f"{file.path}: not the publisher's file, fetching it again")
        target.unlink()
        return False

    def _same(self, file: ListedFile, target: Path) -> bool:
        known = None if self.rehash else self.cache.known(target)
        if known is not None and file.sha256 is not None:
            return known == file.sha256
        if known is not None and file.git_sha1 is None:
            return True
        digests = self._wanted(file).digests()
        feed(digests, target, self.remote.network.stop)
        if digests.wrong:
            return False
        self.cache.remember(target, digests.sha256)
        return True
