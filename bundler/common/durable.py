"""Names that survive a power cut: a file's bytes and its name in the folder are made durable apart."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import stat
from typing import TYPE_CHECKING

from bundler.common.disk_trouble import naming

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


LIBC = ctypes.CDLL(None, use_errno=True)
"""For ``syncfs``, which Python doesn't have."""


def sync_file_system(folder: Path) -> None:
    """Make all durable that was written to a folder's file system, by other programs too.

    :raises OSError: the folder can't be opened, or the disk took something not.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        while LIBC.syncfs(descriptor):
            number = ctypes.get_errno()
            # Python goes on by itself after a signal; a call by ctypes doesn't.
            if number != errno.EINTR:
                raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make a folder's names durable; file systems that can't sync a folder do it their own way.

    :raises OSError: the disk failed at it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync_names(descriptor, folder)
    finally:
        os.close(descriptor)


def sync_names(descriptor: int, folder: Path) -> None:
    """Make the names of an open folder durable, as :func:`sync_folder` does."""
    try:
        os.fsync(descriptor)
    except OSError as problem:
        # Any other refusal is of a file system that doesn't know the call.
        if problem.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
            problem.filename = str(folder)
            raise


def remove(path: Path) -> None:
    """Remove a folder with all that is in it, a file or a link, which isn't followed, or what isn't there.

    :raises OSError: something can't be removed.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def make_folder(folder: Path) -> bool:
    """Make a folder, and those above it that aren't there; each new name is made durable.

    :returns: whether it is new.
    :raises OSError: it can't be made, or something else has its name.
    """
    try:
        if not folder.parent.exists() and folder.parent != folder:
            make_folder(folder.parent)
        folder.mkdir()
    except OSError:
        # What is there already may be refused for other reasons too: a disk that is mounted read-only.
        if not folder.is_dir():
            raise
        return False
    # A folder may be one that this user writes to and can't read.
    with contextlib.suppress(PermissionError):
        sync_folder(folder.parent)
    return True


def write_atomically(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a small file so that after a crash it is the old one or the new one, whole.

    What has its temporary name is removed and never written through: another may have put a link there.

    :param mode: the file's, whatever the umask.
    """
    with naming(path):
        _write_atomically(path, data, mode)


def _write_atomically(path: Path, data: bytes, mode: int) -> None:
    make_folder(path.parent)
    partial = path.name + ".partial"
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial, dir_fd=folder)
        new = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode, dir_fd=folder)
        with os.fdopen(new, "wb") as file:
            os.fchmod(new, mode)
            file.write(data)
            file.flush()
            os.fsync(new)
        os.replace(partial, path.name, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        os.close(folder)
    sync_folder(path.parent)


def open_to_all(top: Path) -> None:
    """Let all read what is below a folder, and run what its owner may run; only the owner may write.

    What belongs to another user stays as it is.
    """
    for folder, _, names in os.walk(top):
        for path in (folder, *(os.path.join(folder, name) for name in names)):  # noqa: PTH118
            before = os.lstat(path).st_mode
            wanted = (before | 0o444 | (0o111 if before & 0o100 else 0)) & ~0o022
            if wanted != before and not stat.S_ISLNK(before):
                with contextlib.suppress(PermissionError):
                    os.chmod(path, stat.S_IMODE(wanted))  # noqa: PTH101


def holds_file(folder: Path, name: str) -> bool:
    """Tell whether a folder holds a file of a name; one that this user can't look into holds none."""
    try:
        return (folder / name).is_file()
    except OSError:
        return False


def read_plain(path: Path, largest: int = 2**30) -> bytes:
    """Read a small file, and nothing else that may have its name.

    :param largest: bytes; a longer file is refused before it is read.
    :raises OSError: it can't be read, isn't a plain file (``EINVAL``), or is longer (``EFBIG``).
    """
    with os.fdopen(open_plain(path), "rb") as file:
        if os.fstat(file.fileno()).st_size > largest:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
        return file.read(largest)


def open_plain(path: Path) -> int:
    """Return a descriptor for reading a file, and nothing else that may have its name.

    A FIFO would be waited for, and a device read, without end.

    :raises OSError: it can't be opened, or isn't a plain file (``EINVAL``).
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a plain file", str(path))
    return descriptor


@contextlib.contextmanager
def locked(path: Path, busy: Callable[[], None]) -> Iterator[None]:
    """Hold a lock that one process at a time can have; it ends with its process, however that ends.

    :param path: the lock's file, made where it isn't there and left.
    :param busy: called where another one has it; it may raise, otherwise the lock is waited for.
    :raises OSError: the file can't be made.
    """
    # For both ways and without waiting: a FIFO of that name would wait for another end.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o644), "rb", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            busy()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
