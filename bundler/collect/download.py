"""One file to the disk: resumed, checked while it is written, renamed when whole.

Beside the file, a download under way has ``NAME.partial`` with the bytes that came so far and
``NAME.partial.origin`` with the address and the validator (ETag or modification time) they came with.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

from bundler.collect import ranges
from bundler.collect.faults import Stopped
from bundler.collect.transfer import PATIENT, RunningDigests, Transfer
from bundler.common.digest import read_blocks
from bundler.common.disk_trouble import FULL, advice
from bundler.common.durable import make_folder, sync_folder
from bundler.common.units import size_text
from bundler.errors import BundlerError, PreflightError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bundler.collect.network import Origin
    from bundler.collect.transfer import Patience

SPARE = 64 << 20
"""Bytes that a fetch leaves free on the disk."""


@dataclass(frozen=True)
class Wanted:
    """A file to download."""

    path: Path
    """Where it goes; its folder is made."""
    urls: tuple[str, ...] = ()
    """Addresses of the same content, tried in this order."""
    sha256: str | None = None
    """Lower-case hex, where the publisher gives it; without any digest whatever comes is taken."""
    size: int | None = None
    """Bytes, where known."""
    git_sha1: str | None = None
    """The git blob id, where that is what the publisher gives."""
    md5: str | None = None
    """Where that is what the publisher gives."""
    growing: Path | None = None
    """Where it grows, where not beside its path."""
    name: str = ""
    """For messages, where not the path's own."""

    @property
    def partial(self) -> Path:
        """Where it grows."""
        return self.growing or self.path.with_name(self.path.name + ".partial")

    @property
    def origin(self) -> Path:
        """Where the partial file's address and validator are kept."""
        return self.partial.with_name(self.partial.name + ".origin")

    @property
    def checked(self) -> bool:
        """Whether a publisher's digest tells its bytes from others."""
        return any((self.sha256, self.git_sha1, self.md5))

    def partial_size(self) -> int:
        """Bytes that came so far."""
        try:
            return self.partial.stat().st_size
        except FileNotFoundError:
            return 0

    def digests(self) -> RunningDigests:
        """Return the digests of no bytes yet."""
        return RunningDigests(self.size, self.sha256, self.git_sha1, self.md5)


def receive(
    wanted: Wanted,
    origins: Sequence[Origin],
    advance: Callable[[int], None] | None = None,
    *,
    stop: threading.Event,
    counted: int = 0,
    connections: int = 1,
    patience: Patience = PATIENT,
    say: Callable[[str], None] | None = None,
) -> str:
    """Bring a file to its path, whole and durably, and return its sha256.

    :param advance: told the bytes as they come; a negative number where bytes turned out to be useless.
    :param stop: ends it soon after it is set; what came so far stays on the disk.
    :param counted: bytes of the partial file that ``advance``'s receiver counted before.
    :param connections: how many a large file may have, whose digest is promised.
    :param say: told of wrong bytes that are fetched once more.
    :raises FetchError: no origin gave it, after retries.
    :raises DamagedError: twice the content was not what the publisher promised.
    :raises PreflightError: the disk is full.
    :raises Stopped: it was told to stop.
    """
    receiving = _Receiving(wanted, advance or (lambda _: None), counted, stop)

    def make(patience: Patience = patience) -> Transfer:
        name, checked = wanted.name or wanted.path.name, wanted.checked
        return Transfer(name, origins, wanted.size, stop=stop, patience=patience, checked=checked)

    transfer = make()
    again = False
    try:
        make_folder(wanted.path.parent)
        make_folder(wanted.partial.parent)
        receiving.bring_ranges(lambda: make(replace(patience, attempts=2)), connections)
        while (digests := receiving.bring(transfer)).wrong:
            problem = transfer.damaged(digests.wrong)
            receiving.discard()
            if again:
                raise problem
            again = True
            if say is not None:
                say(f"{wanted.name or wanted.path.name}: {digests.wrong[1]}; fetching it once more")
        receiving.finish()
    except OSError as problem:
        _raise_disk(problem, wanted)
    return digests.sha256


class _Receiving:
    """One file's partial file, and how much of it counts as done."""

    def __init__(
        self, wanted: Wanted, advance: Callable[[int], None], done: int, stop: threading.Event
    ) -> None:
        self._wanted, self._advance, self._done, self._stop = wanted, advance, done, stop

    def bring(self, transfer: Transfer) -> RunningDigests:
        """Write what is lacking; return the digests of the whole."""
        wanted, digests = self._wanted, self._resumable()
        self._set(digests.size)
        pieces = transfer.pieces(digests.size, validators=self._validators(), opened=self._keep_origin)
        with wanted.partial.open("r+b" if digests.size else "wb") as file:
            file.seek(digests.size)
            for place, piece in pieces:
                if place != digests.size:
                    file.seek(place)
                    file.truncate()
                    digests = wanted.digests()
                file.write(piece)
                digests.update(piece)
                self._set(digests.size)
            file.flush()
            os.fsync(file.fileno())
        return digests

    def bring_ranges(self, make: Callable[[], Transfer], connections: int) -> None:
        """Write as much of a large file as several connections give; what they don't, :meth:`bring` gets."""
        wanted, start = self._wanted, self._wanted.partial_size()
        size = wanted.size or 0
        if connections == 1 or not wanted.checked or size - start < ranges.LARGE:
            return
        with wanted.partial.open("ab") as file:
            for place, piece in ranges.by_ranges(make, start, size, connections):
                file.write(piece)
                self._set(place + len(piece))

    def finish(self) -> None:
        """Give the partial file its name, durably."""
        self._wanted.partial.replace(self._wanted.path)
        self._wanted.origin.unlink(missing_ok=True)
        sync_folder(self._wanted.path.parent)

    def discard(self) -> None:
        """Forget what came so far."""
        self._wanted.partial.unlink(missing_ok=True)
        self._wanted.origin.unlink(missing_ok=True)
        self._set(0)

    def _set(self, done: int) -> None:
        if done != self._done:
            self._advance(done - self._done)
            self._done = done

    def _resumable(self) -> RunningDigests:
        """Return the digests of what can be kept of the partial file; what can't is removed."""
        wanted, digests = self._wanted, self._wanted.digests()
        size = wanted.partial_size()
        known = wanted.checked or self._validators()
        if not known or (wanted.size is not None and size > wanted.size):
            self.discard()
        elif size:
            feed(digests, wanted.partial, self._stop)
        return digests

    def _validators(self) -> dict[str, str]:
        """Return the address and the validator that the partial file began with, if there are any."""
        try:
            address, validator = self._wanted.origin.read_text(encoding="utf-8").split("\n", 1)
        except (OSError, ValueError):
            return {}
        return {address: validator} if validator else {}

    def _keep_origin(self, address: str, validator: str) -> None:
        self._wanted.origin.write_text(f"{address}\n{validator}", encoding="utf-8")


def feed(digests: RunningDigests, path: Path, stop: threading.Event) -> None:
    """Digest a file; :class:`Stopped` is raised where ``stop`` was set meanwhile."""
    for block in read_blocks(path, stop):
        digests.update(block)
    if stop.is_set():
        raise Stopped


def check_room(folder: Path, needed: int, what: str, hint: str) -> None:
    """Refuse what won't fit, before anything is written.

    :param needed: bytes that are still to come.
    :raises PreflightError: naming both sizes.
    """
    free = shutil.disk_usage(folder).free
    if needed and needed + SPARE > free:
        raise PreflightError(
            f"{what} wants {size_text(needed)} more on this disk, which has {size_text(free)} free",
            where=folder,
            hint=hint,
        )


def _raise_disk(problem: OSError, wanted: Wanted) -> NoReturn:
    if problem.errno in FULL:
        raise PreflightError(
            f"the disk is full while {wanted.path.name} is written",
            where=wanted.path.parent,
            hint="free some space; the same command goes on where it stopped",
        ) from problem
    kind = PreflightError if (hint := advice(problem)) else BundlerError
    raise kind(
        f"can't write {wanted.path.name}: {problem.strerror or problem}", where=wanted.path.parent, hint=hint
    ) from problem
