"""Digests of files that were read before: a file whose size and time are unchanged isn't read again.

One line a file, appended as soon as its digest is known, so that a killed run loses nothing::

    ["GLM-4.7/model-00001-of-00093.safetensors",5368709120,1764000000000000000,"9f86d0…"]
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import msgspec

from bundler.common.broken import BROKEN_JSON
from bundler.common.digest import sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class _Line(msgspec.Struct, frozen=True, array_like=True):
    path: str
    size: int
    mtime_ns: int
    sha256: str


class HashCache:
    """Remembers sha256 by path, size and modification time. Its methods may be called from any thread."""

    def __init__(self, file: Path, root: Path) -> None:
        """Open a cache; what can't be read of it is forgotten.

        :param file: where the cache lies.
        :param root: the folder that paths are relative to, so that it can be moved.
        """
        self._file = file
        self._root = root
        self._lock = threading.Lock()
        self._lines: dict[str, _Line] = {}
        try:
            text = file.read_bytes()
        except OSError:
            return
        for line in text.splitlines():
            try:
                one = msgspec.json.decode(line, type=_Line)
            except BROKEN_JSON:
                continue  # torn by a kill
            self._lines[one.path] = one

    def known(self, path: Path) -> str | None:
        """Return a file's sha256 if it was read before and hasn't changed since."""
        status = path.stat()
        line = self._lines.get(self._key(path))
        if line is None or (line.size, line.mtime_ns) != (status.st_size, status.st_mtime_ns):
            return None
        return line.sha256

    def remember(self, path: Path, sha256: str) -> None:
        """Keep a digest that somebody computed from the file as it is now."""
        status = path.stat()
        line = _Line(self._key(path), status.st_size, status.st_mtime_ns, sha256)
        with self._lock:
            if self._lines.get(line.path) == line:
                return
            self._lines[line.path] = line
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("ab") as file:
                file.write(msgspec.json.encode(line) + b"\n")

    def sha256(self, path: Path, *, fresh: bool = False, advance: Callable[[int], None] | None = None) -> str:
        """Return a file's sha256, read from the cache or from the file.

        :param fresh: read the file whatever the cache says.
        :param advance: called with the bytes of each step; with all of them at once where none was read.
        :raises OSError: the file can't be read.
        """
        known = None if fresh else self.known(path)
        if known is not None:
            if advance is not None:
                advance(path.stat().st_size)
            return known
        digest = sha256_of(path, advance)
        self.remember(path, digest)
        return digest

    def _key(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix() if path.is_relative_to(self._root) else str(path)
