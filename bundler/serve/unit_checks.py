"""What a unit names, before it is written: its user, the key's file and the installation's folder."""

from __future__ import annotations

import os
import pwd
import shlex
import stat
from typing import TYPE_CHECKING

from bundler.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from bundler.serve.launch import ServerLaunch


def check_unit(launch: ServerLaunch, user: str | None) -> None:
    """Refuse a unit that can't start.

    :param user: who serves; root where not given.
    :raises UsageError: there is no such user, or it can't read the key or enter the installation.
    """
    try:
        entry = pwd.getpwnam(user or "root")
    except KeyError as problem:
        hint = f"make it: useradd --system {shlex.quote(str(user))}"
        raise UsageError(f"there is no user {user!r} on this host", hint=hint) from problem
    if key_file := launch.wishes.key_file:
        _check_key(key_file, entry)
    root = launch.target.root.absolute()
    for folder in (*reversed(root.parents), root):
        if not _may(folder, entry, stat.S_IXOTH):
            raise UsageError(
                f"user {entry.pw_name} can't enter the installation's folder",
                where=folder,
                hint="chmod o+x on it, or another --user",
            )


def _check_key(key_file: Path, entry: pwd.struct_passwd) -> None:
    """Refuse a key's file that the user can't read, or that others can."""
    try:
        mode = stat.S_IMODE(key_file.stat().st_mode)
    except OSError as problem:
        raise UsageError(f"can't read the API key: {problem.strerror}", where=key_file) from problem
    if mode & 0o077:
        raise UsageError(
            f"others can read the API key (mode {mode:04o})", where=key_file, hint=f"chmod 600 {key_file}"
        )
    if not _may(key_file, entry, stat.S_IROTH):
        raise UsageError(
            f"user {entry.pw_name} can't read the API key",
            where=key_file,
            hint=f"chown {entry.pw_name} {shlex.quote(str(key_file))}",
        )


def _may(path: Path, entry: pwd.struct_passwd, right: int) -> bool:
    """Say whether a user has a right, given as the one of others, to a file or folder."""
    if entry.pw_uid == 0:
        return True
    found = path.stat()
    if found.st_uid == entry.pw_uid:
        return bool(found.st_mode & right << 6)
    if found.st_gid in os.getgrouplist(entry.pw_name, entry.pw_gid):
        return bool(found.st_mode & right << 3)
    return bool(found.st_mode & right)
