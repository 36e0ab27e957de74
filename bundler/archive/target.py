"""The destination of an unpack: every name is reached folder by folder, and never through a link."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from bundler.archive import tar
from bundler.common.digest import sha256_of
from bundler.common.disk_trouble import FULL, advice
from bundler.common.durable import make_folder
from bundler.common.units import size_text
from bundler.errors import DestinationError, PreflightError
from bundler.installation import PARTIAL, STATE, refuse_planted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bundler.manifest import Entry

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Never through a link, and never waiting for the other end of a FIFO."""
_WRITE = os.O_WRONLY | _FILE
_CLONE = 0x40049409
"""``FICLONE`` (ioctl_ficlone(2)): btrfs and xfs know it."""
_WRITABLE = 0o222
_BLOCK = 2**23


class Target:
    """The folder that is unpacked to. Files are written in a tree of their own first, under ``PARTIAL``."""

    def __init__(self, root: Path) -> None:
        """Make the folder and its state.

        :raises PreflightError: it can't be written to.
        :raises DestinationError: something that isn't a folder is in the way.
        """
        self.root = root
        try:
            if make_folder(root):
                # The umask must not decide who can serve from here.
                root.chmod(tar.DIR_MODE)
            refuse_planted(root)
            self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as problem:
            raise refusal(problem, root) from problem
        try:
            for folder in (STATE, PARTIAL):
                self.make_folder(folder)
        except OSError as problem:
            self.close()
            raise refusal(problem, root) from problem
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the folder."""
        if self._root >= 0:
            os.close(self._root)
        self._root = -1

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def status(self, path: str) -> os.stat_result | None:
        """Return what is at a path of the tree, a link as itself, or ``None``.

        :raises DestinationError: a folder above it is a link, or no folder.
        """
        parent, _, name = path.rpartition("/")
        try:
            with self._folder(parent) as folder:
                return os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def open_file(self, path: str) -> int:
        """Return a descriptor for reading a file of the tree."""
        parent, _, name = path.rpartition("/")
        with self._folder(parent) as folder:
            return os.open(name, os.O_RDONLY | _FILE, dir_fd=folder)

    def adopt(self, entry: Entry, advance: Callable[[int], None]) -> bool:
        """Tell whether a file that is there has its entry's content; then it is durable and has its mode.

        :param advance: called with the bytes that were read.
        """
        file = self.open_file(entry.path)
        try:
            if sha256_of(os.dup(file), advance) != entry.sha256:
                return False
            linked = os.fstat(file).st_nlink > 1
            with contextlib.suppress(PermissionError):  # another user's
                os.fchmod(file, entry.mode & ~_WRITABLE if linked else entry.mode)
            os.fsync(file)
            return True
        finally:
            os.close(file)

    def take(self, entry: Entry, source: Path) -> int | None:
        """Give an entry's name to a file of its content elsewhere: cloned, else linked, else copied.

        A clone shares the disk's blocks and nothing else. A link is one file with two names: it is made only
        where nobody but root can write to that file any more, by any of its names.

        :return: its modification time, in nanoseconds; ``None`` where what was copied has other bytes.
        """
        with source.open("rb") as opened:
            if self._clone(entry, opened.fileno()):
                self.sync(entry)
                return self.place(entry)
            if self._link(entry, source, opened.fileno()):
                self.drop_partial(entry)
                return os.fstat(opened.fileno()).st_mtime_ns
            return self.fill(entry, opened)

    def fill(self, entry: Entry, content: BinaryIO) -> int | None:
        """Write an entry's file from a stream.

        :return: its modification time, in nanoseconds; ``None`` where the stream held other bytes.
        """
        os.close(self._open_partial(entry, _WRITE | os.O_CREAT | os.O_TRUNC))
        at = 0
        while block := content.read(_BLOCK):
            self.write(entry, at, memoryview(block))
            at += len(block)
        if not self.holds(entry):
            self.drop_partial(entry)
            return None
        self.sync(entry)
        return self.place(entry)

    def _clone(self, entry: Entry, source: int) -> bool:
        """Let a file under way share another's blocks; say whether the file system can."""
        file = self._open_partial(entry, _WRITE | os.O_CREAT | os.O_TRUNC)
        try:
            fcntl.ioctl(file, _CLONE, source)
        except OSError:
            return False
        finally:
            os.close(file)
        return True

    def _link(self, entry: Entry, source: Path, opened: int) -> bool:
        """Give an entry's name to another file and make that one read-only; say whether that can be."""
        mode = stat.S_IMODE(os.fstat(opened).st_mode)
        if mode & ~_WRITABLE != entry.mode & ~_WRITABLE:
            return False
        parent, _, name = entry.path.rpartition("/")
        with self._folder(parent) as folder:
            try:
                os.link(source, name, dst_dir_fd=folder, follow_symlinks=False)
            except OSError:
                return False
            try:
                if mode & _WRITABLE:
                    os.fchmod(opened, mode & ~_WRITABLE)
            except OSError:
                # Another user's, who can write to it.
                os.unlink(name, dir_fd=folder)
                return False
        return True

    def make_folder(self, path: str) -> None:
        """Make a folder whose parent is there, or keep the one that is; its name is made durable.

        :raises DestinationError: something else has its name.
        """
        parent, _, name = path.rpartition("/")
        with self._folder(parent) as folder:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, tar.DIR_MODE, dir_fd=folder)
            with self._folder(path) as made, contextlib.suppress(PermissionError):  # another user's
                # No umask decides who can serve from it, whoever made it.
                if stat.S_IMODE(os.fstat(made).st_mode) != tar.DIR_MODE:
                    os.fchmod(made, tar.DIR_MODE)
            # Also of one that is there: an earlier run may have been killed before it came to this.
            os.fsync(folder)

    def make_link(self, path: str, target: str) -> None:
        """Make a link, or keep the one that is there and is the same.

        :raises DestinationError: something else has its name.
        """
        parent, _, name = path.rpartition("/")
        with self._folder(parent) as folder:
            try:
                os.symlink(target, name, dir_fd=folder)
            except FileExistsError:
                there = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if not stat.S_ISLNK(there.st_mode) or os.readlink(name, dir_fd=folder) != target:
                    raise self._in_the_way(path) from None

    def partial_status(self, entry: Entry) -> os.stat_result | None:
        """Return what is known of a file under way."""
        return self.status(f"{PARTIAL}/{entry.path}")

    def write(self, entry: Entry, at: int, data: memoryview) -> None:
        """Write a piece of a file at its place, in the file under way; its folder is there."""
        file = self._open_partial(entry, _WRITE | os.O_CREAT)
        try:
            while data:
                written = os.pwrite(file, data, at)
                data, at = data[written:], at + written
        finally:
            os.close(file)

    def holds(self, entry: Entry) -> bool:
        """Tell whether a file under way has the size and the sha256 of the manifest."""
        file = self._open_partial(entry, os.O_RDONLY | _FILE)
        with os.fdopen(file, "rb") as opened:
            if os.fstat(file).st_size != entry.size:
                return False
            return hashlib.file_digest(opened, "sha256").hexdigest() == entry.sha256

    def drop_partial(self, entry: Entry) -> None:
        """Remove a file under way."""
        parent, _, name = entry.path.rpartition("/")
        with self._folder(_partial_folder(parent)) as folder:
            os.unlink(name, dir_fd=folder)

    def sync(self, entry: Entry) -> None:
        """Make what was written to a file under way durable."""
        file = self._open_partial(entry, _WRITE)
        try:
            os.fsync(file)
        finally:
            os.close(file)

    def place(self, entry: Entry) -> int:
        """Give a whole and durable file its own name.

        :return: its modification time, in nanoseconds.
        """
        file = self._open_partial(entry, _WRITE)
        try:
            os.fchmod(file, entry.mode)
            modified = os.fstat(file).st_mtime_ns
        finally:
            os.close(file)
        parent, _, name = entry.path.rpartition("/")
        with self._folder(_partial_folder(parent)) as source, self._folder(parent) as folder:
            os.rename(name, name, src_dir_fd=source, dst_dir_fd=folder)
        return modified

    def sync_folder(self, path: str) -> None:
        """Make a folder's names durable."""
        with self._folder(path) as folder:
            os.fsync(folder)

    def clear_partials(self) -> None:
        """Delete all files under way."""
        # rmtree follows no links.
        shutil.rmtree(self.root / PARTIAL)
        self.make_folder(PARTIAL)

    def free(self) -> int:
        """Return the bytes that may still be written."""
        there = os.fstatvfs(self._root)
        return there.f_bavail * there.f_frsize

    def _open_partial(self, entry: Entry, flags: int) -> int:
        parent, _, name = entry.path.rpartition("/")
        with self._folder(_partial_folder(parent)) as folder:
            return os.open(name, flags, tar.FILE_MODE, dir_fd=folder)

    @contextmanager
    def _folder(self, path: str) -> Iterator[int]:
        """Open a folder of the tree, part by part."""
        folder = os.dup(self._root)
        try:
            for part in path.split("/") if path else ():
                try:
                    below = os.open(part, _FOLDER, dir_fd=folder)
                except OSError as problem:
                    if problem.errno in (errno.ELOOP, errno.ENOTDIR):
                        raise self._in_the_way(path) from problem
                    raise
                os.close(folder)
                folder = below
            yield folder
        finally:
            os.close(folder)

    def _in_the_way(self, path: str) -> DestinationError:
        return DestinationError(
            f"something else is in the place of {path}, or a link leads to it",
            where=self.root / path,
            hint="move it away, or unpack to a new folder",
        )


def _partial_folder(parent: str) -> str:
    return f"{PARTIAL}/{parent}" if parent else PARTIAL


def refusal(problem: OSError, root: Path) -> PreflightError | DestinationError:
    """Return the message for a destination that can't be made or written."""
    if problem.errno in FULL:
        return full(root)
    if problem.errno == errno.EXDEV:
        return DestinationError(
            "a folder in the destination is another file system, so that files can't be moved to it",
            where=root,
            hint="mount that file system at the destination itself",
        )
    if problem.errno == errno.EFBIG:
        return DestinationError(
            "the destination's file system takes no file as large as one of the bundle's",
            where=root,
            hint="FAT32 takes files under 4 GiB: unpack to ext4, xfs or another Linux file system",
        )
    if problem.errno in (errno.ENOTDIR, errno.EEXIST, errno.ELOOP):
        return DestinationError("the destination is not a folder", where=root, hint="name a new folder")
    return PreflightError(
        f"the destination can't be written to: {problem.strerror}",
        where=root,
        hint=advice(problem)
        or "name a folder on a disk that is mounted read-write and that you may write to",
    )


def full(root: Path, needed: int | None = None, free: int | None = None) -> PreflightError:
    """Return the message for a disk without room.

    :param needed: bytes that are still to be written, where that is known.
    """
    sizes = "" if needed is None else f": {size_text(needed)} are needed, {size_text(free or 0)} are free"
    return PreflightError(
        f"not enough space at the destination{sizes}; what is unpacked so far is kept",
        where=root,
        hint="free some space, then run the same command again: it goes on",
    )


def tells_case(root: Path) -> bool:
    """Try whether a folder's file system tells upper from lower case."""
    state = root / STATE
    probe = state / "Case-Probe"
    probe.touch()
    try:
        return not (state / "case-probe").exists()
    finally:
        probe.unlink()
