"""A hub's files as the archive's sources: read while they are written, never on this host's disk."""

from __future__ import annotations

import io
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO, cast

from bundler.collect.models.reader import Reader
from bundler.collect.transfer import RunningDigests
from bundler.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from bundler.collect.models.listing import ListedFile, Listing
    from bundler.collect.models.remote import Remote


@dataclass(frozen=True)
class RemoteSource:
    """One file on a hub: a source of the archive whose fingerprint is the publisher's digest."""

    remote: Remote
    file: ListedFile

    @property
    def fingerprint(self) -> str:
        """The publisher's sha256."""
        return f"sha256:{self.file.sha256}"

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open the file; it goes on by itself after a cut connection, and can be read from any place on."""
        with io.BufferedReader(_Pieces(self.remote, self.file), 1 << 20) as reader:
            yield cast("BinaryIO", reader)


class _Pieces(io.RawIOBase):
    """A hub's file as a raw stream; the connection is made by the first read."""

    def __init__(self, remote: Remote, file: ListedFile) -> None:
        self._remote = remote
        self._file = file
        self._position = 0
        self._pieces: Generator[tuple[int, bytes], None, None] | None = None
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        """Return true: an interrupted pack goes on in the middle of a file."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place; the next read asks the hub for the bytes from there on."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file.size}[whence]
        if base + offset != self._position:
            self._stop()
            self._position = base + offset
        return self._position

    def readinto(self, buffer: object) -> int:
        """Fill a buffer from the next bytes; 0 at the end."""
        into = memoryview(cast("bytearray", buffer)).cast("B")
        if self._pieces is None:
            self._pieces = self._remote.transfer(self._file).pieces(self._position, skip=True)
        if not self._rest:
            self._rest = memoryview(next(self._pieces, (0, b""))[1])
        count = min(len(into), len(self._rest))
        into[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        self._position += count
        return count

    def _stop(self) -> None:
        if self._pieces is not None:
            self._pieces.close()
        self._pieces, self._rest = None, memoryview(b"")

    def close(self) -> None:
        """Give the connection back."""
        self._stop()
        super().close()


def range_reader(remote: Remote, listing: Listing) -> Reader:
    """Return how a hub's files are read by parts, to prove them complete before anything is written."""
    files = {file.path: file for file in listing.files}

    def read(path: str, offset: int, length: int) -> bytes:
        length = min(length, files[path].size - offset)
        return remote.transfer(files[path]).read(offset, length) if length > 0 else b""

    return Reader(remote.where, listing.sizes(), read, remote.network.interrupt)


def digested(remote: Remote, listing: Listing) -> Listing:
    """Return a listing whose every file has a sha256: without one, a wrong byte would never be seen.

    Small files that have a git blob id only are read from the hub now, and checked by it.

    :raises InputError: nobody promised anything of some files; they are named.
    :raises DamagedError: a small file's bytes aren't those of its blob id.
    """
    unknown = [file.path for file in listing.files if not (file.sha256 or file.git_sha1)]
    if unknown:
        raise InputError(
            f"{len(unknown)} files have no publisher's sha256 and can't be streamed",
            where=remote.where,
            hint="leave --stream out: files on the disk are checked by what the hub does say",
            findings=unknown[:20],
        )
    files = (
        file if file.sha256 else replace(file, sha256=_digest_by_git(remote, file)) for file in listing.files
    )
    return replace(listing, files=tuple(files))


def _digest_by_git(remote: Remote, file: ListedFile) -> str:
    transfer = remote.transfer(file)
    for last in (False, True):
        digests = RunningDigests(file.size, None, file.git_sha1)
        for _, piece in transfer.pieces(skip=True):
            digests.update(piece)
        if not digests.wrong:
            break
        if last:
            raise transfer.damaged(digests.wrong)
    return digests.sha256
