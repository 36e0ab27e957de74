"""A journal: lines that are either whole and durable, or not there.

Each line holds a digest of itself, so that a tail torn by a crash is recognised and cut off. The first line
names what the journal is about; a lock keeps a second process out.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec
from blake3 import blake3

from bundler.common.broken import BROKEN_JSON
from bundler.common.disk_trouble import naming
from bundler.common.durable import sync_folder
from bundler.errors import DestinationError

if TYPE_CHECKING:
    from pathlib import Path

R = TypeVar("R", bound=msgspec.Struct)

_DIGEST = 16


class _Subject(msgspec.Struct):
    subject: str


class Journal(Generic[R]):
    """An append-only file of records of one type, locked as long as it is open."""

    def __init__(self, path: Path, record: type[R]) -> None:
        """Open or make the journal and read what is durable in it.

        :param path: the file; its folder exists. A link there is refused.
        :param record: the type of its records.
        :raises DestinationError: another process works with it, or it is no plain file.
        """
        self._path = path
        self._file = _open(path)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            os.close(self._file)
            raise DestinationError(
                "another bundler is at work here", where=path.parent, hint="wait until it is done, or end it"
            ) from problem
        self._decoder = msgspec.json.Decoder(record)
        self.subject: str | None = None
        """What the journal is about, or ``None`` where it is new."""
        self.records: list[R] = []
        """What was durable when it was opened."""
        self._read()

    def start(self, subject: str) -> None:
        """Forget everything and begin anew."""
        os.ftruncate(self._file, 0)
        self.subject, self.records = subject, []
        self._append(msgspec.json.encode(_Subject(subject)))
        sync_folder(self._path.parent)

    def append(self, record: R) -> None:
        """Add a record; it is durable when this returns."""
        with naming(self._path):
            self._append(msgspec.json.encode(record))

    def remove(self) -> None:
        """Delete the file: what it was about is done."""
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the file and its lock."""
        with contextlib.suppress(OSError):
            os.close(self._file)
        self._file = -1

    def _append(self, data: bytes) -> None:
        line = _mark(data) + b" " + data + b"\n"
        end = os.lseek(self._file, 0, os.SEEK_END)
        try:
            written = 0
            while written < len(line):
                written += os.write(self._file, line[written:])
            os.fsync(self._file)
        except OSError:
            # A full disk leaves half a line: without it the next line would be lost with it.
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, end)
            raise

    def _read(self) -> None:
        with open(self._file, "rb", closefd=False) as file:
            data = file.read()
        good = 0
        for line in data.splitlines(keepends=True):
            mark, body = line[:_DIGEST], line[_DIGEST + 1 : -1]
            if not line.endswith(b"\n") or mark != _mark(body):
                break
            try:
                if self.subject is None:
                    self.subject = msgspec.json.decode(body, type=_Subject).subject
                else:
                    self.records.append(self._decoder.decode(body))
            except BROKEN_JSON:
                break
            good += len(line)
        if good != len(data):
            os.ftruncate(self._file, good)


def _mark(data: bytes) -> bytes:
    return blake3(data).hexdigest()[:_DIGEST].encode()


def _open(path: Path) -> int:
    """Return the journal's descriptor; never through a link, nor waiting for the other end of a FIFO."""
    other = DestinationError("this is no journal, but a link or something else", where=path, hint="remove it")
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    except OSError as problem:
        if problem.errno == errno.ELOOP:
            raise other from problem
        raise
    if stat.S_ISREG(os.fstat(file).st_mode):
        return file
    os.close(file)
    raise other
