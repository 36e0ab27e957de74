"""A disk that is watched: what was synced, what got its name, and what a power cut would leave of it.

Only what was synced counts as being on the disk: a file has the content of its last sync, not the one that
the page cache shows. So an order that holds on every file system is told from one that holds by luck.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bundler.common import durable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    import pytest


@dataclass(frozen=True)
class Event:
    """A step that a power cut could come after."""

    kind: str
    """``sync``, ``sync folder``, ``sync all``, ``make folder``, ``name``, ``write`` or ``append``."""
    path: str
    """Below the watched folder; a ``name``'s new one."""
    torn: tuple[str, ...]
    """The files of the watched folder whose content was not all on the disk at this moment."""
    unnamed: tuple[str, ...]
    """The new files of the watched folder whose names were not on the disk at this moment."""
    thread: int


class WatchedDisk:
    """Records what happens below a folder, in order, from every thread of this process."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root.resolve()
        self.events: list[Event] = []
        self._lock = threading.RLock()
        self._durable: dict[tuple[int, int], str] = {}
        self._listed: set[str] = set()
        self._before = self._contents()
        for name, wrap in (
            ("fsync", self._sync),
            ("mkdir", self._make),
            ("rename", self._name),
            ("replace", self._name),
            ("link", self._name),
            ("write", self._write),
        ):
            monkeypatch.setattr(os, name, wrap(getattr(os, name)))
        monkeypatch.setattr(io, "open", self._open(io.open))
        monkeypatch.setattr(durable.LIBC, "syncfs", self._sync_all(durable.LIBC.syncfs))

    def names(self) -> list[str]:
        """Return what got its name, in order, and still has it."""
        return [event.path for _, event in self._named()]

    def last(self, name: str) -> int:
        """Return the place of the event that gave a file its name last."""
        return max(at for at, event in enumerate(self.events) if (event.kind, event.path) == ("name", name))

    def check_names(self, besides: Collection[str] = (), *, at_once: bool = True) -> None:
        """Assert that each file was synced before it got its name, and its folder after.

        :param besides: folders whose files may be lost.
        :param at_once: whether nothing else may come between the name and the folder's sync.
        """
        named = [(at, event) for at, event in self._named() if not event.path.startswith(tuple(besides))]
        assert named, "nothing was seen"
        for at, event in named:
            assert event.path not in event.torn, f"{event.path} got its name before it was synced"
            later = [one for one in self.events[at + 1 :] if one.thread == event.thread or not at_once]
            folder = ("sync folder", str(Path(event.path).parent))
            synced = folder in [(one.kind, one.path) for one in (later[:1] if at_once else later)]
            assert synced, f"{folder[1]} was not synced after {event.path} got its name"

    def check_folders(self) -> set[str]:
        """Assert that each new folder's name was on the disk before its thread did anything else.

        :returns: the folders that were made and stayed.
        """
        made = set()
        for at, event in enumerate(self.events):
            if event.kind != "make folder" or not (self.root / event.path).is_dir():
                continue
            after = next((one for one in self.events[at + 1 :] if one.thread == event.thread), None)
            above = ("sync folder", str(Path(event.path).parent))
            assert after and (after.kind, after.path) == above, (
                f"{event.path} was made, {above[1]} not synced"
            )
            made.add(event.path)
        return made

    def check_last(self, name: str) -> None:
        """Assert that a file got its name when all other names were on the disk, and none came later."""
        at = self.last(name)
        assert self.names()[-1] == name, f"{name} isn't the last"
        for other in {*self.names()} - {name}:
            folder = ("sync folder", str(Path(other).parent))
            between = [(event.kind, event.path) for event in self.events[self.last(other) : at]]
            assert folder in between, f"{name} got its name before that of {other} was on the disk"

    def check_journal(self, journal: str) -> None:
        """Assert that the journal speaks of synced files, and is synced before anything is built on it."""
        lines = [at for at, event in enumerate(self.events) if (event.kind, event.path) == ("write", journal)]
        assert lines, "nothing was journalled"
        for at in lines:
            assert set(self.events[at].torn) <= {journal}, f"journalled before synced: {self.events[at].torn}"
        named: set[str] = set()
        for at, event in enumerate(self.events):
            if at in lines[1:]:
                lost = {*event.unnamed} - named
                assert not lost, f"journalled before their folders were synced: {lost}"
            if event.kind == "name":
                named.add(event.path)
                assert journal not in event.torn, f"{event.path} got its name before the journal was synced"
        for at in lines:
            after = [event for event in self.events[at + 1 :] if event.path == journal]
            assert after and after[0].kind == "sync", "a line was journalled on one that was not synced"

    def _named(self) -> list[tuple[int, Event]]:
        found = [(at, event) for at, event in enumerate(self.events) if event.kind == "name"]
        return [(at, event) for at, event in found if os.path.lexists(self.root / event.path)]

    def _add(self, kind: str, path: str) -> None:
        now = {path: facts for path, facts in self._contents().items() if self._before.get(path) != facts}
        torn = [path for path, (inode, digest) in now.items() if self._durable.get(inode) != digest]
        unnamed = {*now} - self._listed - {*self._before}
        self.events.append(Event(kind, path, tuple(torn), tuple(unnamed), threading.get_ident()))

    def _contents(self) -> dict[str, tuple[tuple[int, int], str]]:
        found = {}
        for path in self.root.rglob("*"):
            # Other threads go on meanwhile: a file may be gone again.
            with contextlib.suppress(OSError):
                status = path.lstat()
                if stat.S_ISREG(status.st_mode):
                    digest = hashlib.sha256(path.read_bytes()).hexdigest()
                    found[str(path.relative_to(self.root))] = ((status.st_dev, status.st_ino), digest)
        return found

    def _below(self, path: Path) -> str | None:
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else None

    def _sync(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def fsync(file: int) -> None:
            with self._lock:
                real(file)
                path = self._below(_path_of(file))
                status = os.fstat(file)
                if path is None:
                    return
                if stat.S_ISDIR(status.st_mode):
                    self._listed |= {str(Path(path) / child) for child in os.listdir(file)}
                    self._add("sync folder", path)
                    return
                content = Path(f"/proc/self/fd/{file}").read_bytes()
                self._durable[status.st_dev, status.st_ino] = hashlib.sha256(content).hexdigest()
                self._add("sync", path)

        return fsync

    def _sync_all(self, real: Callable[[int], int]) -> Callable[[int], int]:
        def syncfs(folder: int) -> int:
            with self._lock:
                result = real(folder)
                contents = self._contents()
                self._durable |= dict(contents.values())
                self._listed |= {*contents}
                self._add("sync all", self._below(_path_of(folder)) or "")
                return result

        return syncfs

    def _name(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def name(source: Any, target: Any, **options: Any) -> None:
            with self._lock:
                real(source, target, **options)
                folder = options.get("dst_dir_fd")
                place = Path(os.fsdecode(target)).absolute() if folder is None else _path_of(folder) / target
                path = self._below(place.parent.resolve() / place.name)
                if path is not None:
                    self._add("name", path)

        return name

    def _make(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def mkdir(folder: Any, *words: Any, dir_fd: int | None = None, **options: Any) -> None:
            with self._lock:
                real(folder, *words, dir_fd=dir_fd, **options)
                place = Path(os.fsdecode(folder)).absolute() if dir_fd is None else _path_of(dir_fd) / folder
                path = self._below(place.parent.resolve() / place.name)
                if path is not None:
                    self._add("make folder", path)

        return mkdir

    def _write(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def write(file: int, data: Any) -> int:
            with self._lock:
                path = self._below(_path_of(file))
                count: int = real(file, data)
                if path is not None:
                    self._add("write", path)
                return count

        return write

    def _open(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def opened(file: Any, mode: str = "r", *words: Any, **options: Any) -> Any:
            if "a" in mode and not isinstance(file, int):
                with self._lock:
                    path = self._below(Path(os.fsdecode(file)).absolute())
                    if path is not None:
                        self._add("append", path)
            return real(file, mode, *words, **options)

        return opened


def _path_of(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}").readlink()
