"""A disk that fails at the n-th call, and knows what a power cut would leave of what was written to it.

Runs in a process of its own, in which the calls of :mod:`os` and the files of :mod:`io` are replaced by ones
that count. Only what was synced is sure: of other bytes, names and removals a power cut keeps what it likes.
"""

# The names of os are used throughout: calls of pathlib are among those that are replaced here.
from __future__ import annotations

import builtins
import contextlib
import ctypes
import errno
import io
import os
import pickle
import signal
import stat
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bundler.common import durable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ERRORS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO}
WRITES = frozenset({"write", "create", "mkdir", "truncate", "rename"})
FITTING = {
    "ENOSPC": WRITES,
    "EIO": WRITES | {"sync", "sync folder", "sync all", "read"},
    "short": frozenset({"write"}),
    "EINTR": frozenset({"sync all"}),
}
"""The calls that a fault can come from; kills and signals come anywhere."""


@dataclass(frozen=True)
class Fault:
    """What goes wrong in one run."""

    kind: str = "none"
    """``kill``, ``kill after``, ``clock``, ``term``, ``ENOSPC``, ``EIO``, ``short``, ``EINTR``, ``none``."""
    at: int = 0
    """Which of the calls below the folder it meets, from 1: before it, or after it."""
    lasting: bool = False
    """Whether all later calls that fit fail too, as on a disk that stays full."""
    seconds: float = 0.0
    """For ``clock``: when the process is killed, whatever it does."""


@dataclass
class Inode:
    """A file, whatever its names."""

    mode: int
    mtime_ns: int
    synced: bytes | None
    """Content of the last sync; ``None``: never synced."""
    current: bytes
    """Content that the page cache shows, or a link's target."""


@dataclass
class Step:
    """A change of the names."""

    kind: str
    path: str
    source: str = ""
    inode: int = 0
    folders: tuple[str, ...] = ()
    durable: bool = False


@dataclass
class Crash:
    """What is known of a disk at the moment of a power cut."""

    before: dict[str, int]
    """Inode of each name at first."""
    steps: list[Step]
    inodes: dict[int, Inode] = field(default_factory=dict)


class _Raw(io.FileIO):
    """An unbuffered file whose writes count."""

    disk: FaultyDisk

    def write(self, data: Any, /) -> int:
        return int(self.disk.call("write", self.fileno(), lambda part: io.FileIO.write(self, part), data))

    def truncate(self, size: int | None = None, /) -> int:
        return int(self.disk.call("truncate", self.fileno(), lambda: io.FileIO.truncate(self, size)))


class FaultyDisk:
    """Counts the calls that concern a folder, fails at one of them, and says what a power cut would leave."""

    def __init__(self, root: Path, source: Path | None, fault: Fault, crash: Path) -> None:
        """Replace the calls of this process.

        :param root: what is written.
        :param source: what is read; its reads fail too.
        :param crash: where the state goes at a kill and at the end.
        """
        self.root, self.source, self.fault, self._crash = str(root), source and str(source), fault, crash
        self.kinds: list[str] = []
        self._fired = False
        self._lock = threading.RLock()
        self._names: dict[str, int] = {}
        """A number of ours for each name: the file system gives its own anew once a file is gone."""
        self._known: dict[int, int] = {}
        self._count = 0
        self._inodes: dict[int, Inode] = {}
        self._steps: list[Step] = []
        self._real = {name: getattr(os, name) for name in ("open", "fsync", "kill", "unlink")}
        self._io_open = io.open
        self._rescan()
        for step in self._steps:
            self._inodes[step.inode].synced = self._inodes[step.inode].current
        self._before, self._steps = dict(self._names), []
        self._replace()

    def finish(self) -> None:
        """Write the state down: the process ended by itself."""
        with self._lock:
            self._rescan()
            self._dump()

    def call(self, kind: str, place: int | str | None, real: Callable[..., Any], *data: Any) -> Any:
        """Make a call, or fail at it."""
        path = os.readlink(f"/proc/self/fd/{place}") if isinstance(place, int) else place
        if path is None or not self._concerns(kind, path):
            return real(*data)
        with self._lock:
            self.kinds.append(kind)
            after = False
            if self._is_due(kind):
                self._fired = True
                if self.fault.kind == "kill":
                    self._die()
                if self.fault.kind == "term":
                    self._real["kill"](os.getpid(), signal.SIGTERM)
                if self.fault.kind in ERRORS:
                    number = ERRORS[self.fault.kind]
                    # The kernel's own errors of writes and syncs name no file.
                    known = (path,) if kind in ("create", "mkdir", "rename") else ()
                    raise OSError(number, os.strerror(number), *known)
                if self.fault.kind == "short" and len(data[0]) > 1:
                    data = (memoryview(data[0])[: max(1, len(data[0]) // 2)],)
                after = self.fault.kind == "kill after"
            result = real(*data)
            if after:
                self._rescan()
                self._die()
            return result

    def _concerns(self, kind: str, path: str) -> bool:
        folder = self.source if kind == "read" else self.root
        return folder is not None and (path == folder or path.startswith(folder + "/"))

    def _is_due(self, kind: str) -> bool:
        if self.fault.kind in ("none", "clock") or (self._fired and not self.fault.lasting):
            return False
        return len(self.kinds) >= self.fault.at and kind in FITTING.get(self.fault.kind, {kind})

    def _die(self) -> None:
        self._rescan()
        self._dump()
        self._real["kill"](os.getpid(), signal.SIGKILL)

    def _dump(self) -> None:
        self._refresh()
        with self._io_open(self._crash, "wb") as file:
            pickle.dump(Crash(self._before, self._steps, self._inodes), file)

    def _refresh(self) -> None:
        for path, number in self._names.items():
            with contextlib.suppress(OSError):
                self._look(path, number)

    def _look(self, path: str, number: int) -> None:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            content = os.readlink(path).encode()
        elif stat.S_ISREG(status.st_mode):
            with self._io_open(path, "rb") as file:
                content = file.read()
        else:
            content = b""
        one = self._inodes.setdefault(number, Inode(status.st_mode, status.st_mtime_ns, None, content))
        one.mode, one.mtime_ns, one.current = status.st_mode, status.st_mtime_ns, content

    def _rescan(self) -> None:
        """Take up names that came without a call of ours: other processes write, too."""
        found: dict[str, int] = {}
        for folder, folders, files in os.walk(self.root):
            for name in (*folders, *files):
                path = f"{folder}/{name}"
                with contextlib.suppress(OSError):
                    found[path] = os.lstat(path).st_ino
        for path in sorted({*self._names} - {*found}, reverse=True):
            self._step(Step("remove", path))
        for path, number in sorted(found.items()):
            if self._names.get(path) != self._known.get(number, -1):
                self._step(Step("name", path, inode=self._identify(number)))

    def _identify(self, inode: int) -> int:
        if inode not in self._known:
            self._count += 1
            self._known[inode] = self._count
        return self._known[inode]

    def _forget(self, number: int | None) -> None:
        if number is not None and number not in self._names.values():
            self._known = {inode: one for inode, one in self._known.items() if one != number}

    def _step(self, step: Step) -> None:
        step.folders = tuple({os.path.dirname(one) for one in (step.path, step.source) if one})
        self._steps.append(step)
        if step.source:
            self._move(step.source, step.path)
        elif step.kind == "remove":
            self._forget(self._names.pop(step.path, None))
        else:
            self._names[step.path] = step.inode
            with contextlib.suppress(OSError):
                self._look(step.path, step.inode)

    def _move(self, source: str, target: str) -> None:
        replaced = self._names.pop(target, None)
        inside = [name for name in self._names if name == source or name.startswith(source + "/")]
        for name in inside:
            self._names[target + name[len(source) :]] = self._names.pop(name)
        self._forget(replaced)

    # The calls

    def _replace(self) -> None:
        for name, wrapped in (
            ("write", self._writing),
            ("pwrite", self._writing),
            ("fsync", self._syncing),
            ("fdatasync", self._syncing),
            ("ftruncate", self._truncating),
            ("mkdir", self._making),
            ("symlink", self._making_link),
            ("rename", self._renaming),
            ("replace", self._renaming),
            ("unlink", self._removing),
            ("remove", self._removing),
            ("rmdir", self._removing),
            ("open", self._opening),
            ("pread", self._reading),
            ("preadv", self._reading),
            ("read", self._reading),
        ):
            setattr(os, name, wrapped(getattr(os, name)))
        io.open = builtins.open = self._file_opening  # type: ignore[assignment]
        durable.LIBC.syncfs = self._syncing_all(durable.LIBC.syncfs)

    def _place(self, path: Any, folder: int | None) -> str:
        text = os.fsdecode(path)
        base = os.getcwd() if folder is None else os.readlink(f"/proc/self/fd/{folder}")
        return os.path.normpath(os.path.join(base, text))

    def _writing(self, real: Callable[..., Any]) -> Callable[..., Any]:
        return lambda file, data, *rest: self.call("write", file, lambda part: real(file, part, *rest), data)

    def _reading(self, real: Callable[..., Any]) -> Callable[..., Any]:
        return lambda file, *rest: self.call("read", file, lambda: real(file, *rest))

    def _truncating(self, real: Callable[..., Any]) -> Callable[..., Any]:
        return lambda file, size: self.call("truncate", file, lambda: real(file, size))

    def _making(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def mkdir(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
            place = self._place(path, dir_fd)

            def make() -> None:
                real(path, mode, dir_fd=dir_fd)
                self._named(place)

            self.call("mkdir", place, make)

        return mkdir

    def _making_link(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def symlink(target: Any, path: Any, *rest: Any, dir_fd: int | None = None) -> None:
            place = self._place(path, dir_fd)

            def make() -> None:
                real(target, path, *rest, dir_fd=dir_fd)
                self._named(place)

            self.call("create", place, make)

        return symlink

    def _named(self, place: str) -> None:
        if self._concerns("create", place):
            number = self._identify(os.lstat(place).st_ino)
            if self._names.get(place) != number:
                self._step(Step("name", place, inode=number))

    def _renaming(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def rename(
            source: Any, target: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None
        ) -> None:
            old, new = self._place(source, src_dir_fd), self._place(target, dst_dir_fd)

            def move() -> None:
                real(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
                if self._concerns("rename", new):
                    self._step(Step("rename", new, old, self._names.get(old, 0)))

            self.call("rename", new, move)

        return rename

    def _removing(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def remove(path: Any, *, dir_fd: int | None = None) -> None:
            place = self._place(path, dir_fd)

            def go() -> None:
                if place in self._names:
                    with contextlib.suppress(OSError):
                        self._look(place, self._names[place])
                real(path, dir_fd=dir_fd)
                if self._concerns("remove", place):
                    self._step(Step("remove", place))

            self.call("remove", place, go)

        return remove

    def _opening(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def opened(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            place = self._place(path, dir_fd)
            if not flags & os.O_CREAT:
                return int(real(path, flags, mode, dir_fd=dir_fd))

            def make() -> int:
                file = int(real(path, flags, mode, dir_fd=dir_fd))
                self._named(place)
                return file

            new = not os.path.lexists(place)
            return int(self.call("create", place, make) if new else real(path, flags, mode, dir_fd=dir_fd))

        return opened

    def _file_opening(
        self, file: Any, mode: str = "r", buffering: int = -1, *words: Any, **options: Any
    ) -> Any:
        if not {*mode} & {*"wax+"} or options.get("opener"):
            return self._io_open(file, mode, buffering, *words, **options)
        plain = mode.replace("b", "").replace("t", "")
        place = None if isinstance(file, int) else self._place(file, None)

        def make() -> _Raw:
            raw = _Raw(file, plain, options.get("closefd", True))
            raw.disk = self
            if place is not None:
                self._named(place)
            return raw

        new = place is not None and not os.path.lexists(place)
        raw = self.call("create", place, make) if new else make()
        if buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in plain else io.BufferedWriter(raw)
        if "b" in mode:
            return buffered
        words = (*words, *(None,) * 3)[:3]
        return io.TextIOWrapper(
            buffered,
            options.get("encoding", words[0]),
            options.get("errors", words[1]),
            options.get("newline", words[2]),
        )

    def _syncing(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def fsync(file: Any) -> None:
            number = file if isinstance(file, int) else file.fileno()
            path, status = os.readlink(f"/proc/self/fd/{number}"), os.fstat(number)
            folder = stat.S_ISDIR(status.st_mode)

            def sync() -> None:
                if not self._concerns("sync", path):
                    real(number)
                elif folder:
                    for step in self._steps:
                        step.durable |= path in step.folders
                elif path in self._names:
                    one = self._names[path]
                    self._look(path, one)
                    self._inodes[one].synced = self._inodes[one].current

            self.call("sync folder" if folder else "sync", path, sync)

        return fsync

    def _syncing_all(self, real: Callable[[int], int]) -> Callable[[int], int]:
        def syncfs(folder: int) -> int:
            def sync() -> int:
                self._rescan()
                self._refresh()
                for step in self._steps:
                    step.durable = True
                for one in self._inodes.values():
                    one.synced = one.current
                return 0

            fires = self.fault.kind == "EINTR" and not self._fired
            try:
                result = int(self.call("sync all", folder, sync))
            except OSError as problem:
                ctypes.set_errno(problem.errno or 0)
                return -1
            if fires and self._fired:
                ctypes.set_errno(errno.EINTR)
                return -1
            return result

        return syncfs
