"""An environment as ``runtime.tar.gz``: conda-pack makes it relocatable, and it is tarred reproducibly.

Nothing in the archive says when, where or by whom it was made: names are sorted, times and owners are 0, and
the scratch folder that the environment was made in is replaced by a placeholder, which ``conda-unpack``
replaces by the runtime's place on the target.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import shutil
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from bundler.common.ask import ask
from bundler.errors import InstallError
from bundler.wheel_record import read_rows, records_of, write_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bundler.common.progress import Meter

PLACEHOLDER = b"/opt/placeholder_of" + b"_bundlers_runtime"
"""Stands for the runtime's place in text files; in two parts, since this file travels in the runtime too."""
LEVEL = 6
"""gzip's level: the runtime is mostly machine code, on which more takes long and gains little."""
LEFT_OUT = ("*.pyc", "conda-meta/*")
"""What doesn't travel. Compiled modules state their source's time, which is normalised, so they would be
stale; Python makes them again. ``conda-meta`` states hashes of files as they were in the scratch folder, and
no package manager manages the runtime."""
CONDA_UNPACK = "bin/conda-unpack"
"""What conda-pack adds last, and what fits the runtime to its place on the target."""
_CONDA_PACK = "from conda_pack.cli import main; main()"


@dataclass(frozen=True, slots=True)
class RuntimeTree:
    """What an archive becomes on the target."""

    size: int
    """Bytes of its files."""
    inodes: int
    """Files, links and folders."""


def settle_scripts(prefix: Path) -> None:
    """Bring an environment's scripts into a form that doesn't depend on the environment's path.

    The console scripts that uv made go, with their lines in ``RECORD``: they name the interpreter by its
    path, and ``RECORD`` states their hash. What is needed of them is started by ``python -m``. Those of conda
    packages look for the interpreter on ``PATH``; where a path is long or has a space, installers make a
    detour by sh, which goes.
    """
    _drop_made_scripts(prefix)
    interpreter = re.escape(os.fsencode(prefix)) + rb"/bin/([^\"\s]+)"
    first_line = re.compile(rb"\A#!(?:/bin/sh\n'''exec' )?\"?" + interpreter + rb"[^\n]*\n")
    for path in sorted((prefix / "bin").iterdir()):
        if not path.is_symlink() and _is_made_script(path, prefix):
            data = path.read_bytes()
            settled = first_line.sub(rb"#!/usr/bin/env \1\n", data)
            if settled != data:
                # A new file: the old one may be a hard link into the package cache.
                path.unlink()
                path.write_bytes(settled)
                path.chmod(0o755)


def _drop_made_scripts(prefix: Path) -> None:
    for record in records_of(prefix):
        site_packages, rows = record.parent.parent, read_rows(record)
        dropped = [row for row in rows if _is_made_script(site_packages / row[0], prefix)]
        if not dropped:
            continue
        for row in dropped:
            (site_packages / row[0]).unlink()
        write_rows(record, (row for row in rows if row not in dropped))


def _is_made_script(path: Path, prefix: Path) -> bool:
    """Whether a file is a script of the environment's ``bin`` that names its interpreter."""
    if os.path.normpath(path.parent) != str(prefix / "bin") or not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(1024)
    return head.startswith(b"#!") and os.fsencode(prefix) in head


def conda_pack(prefix: Path, target: Path, scratch: Path) -> None:
    """Pack an environment with conda-pack into a plain tar, with ``bin/conda-unpack`` in it.

    In a process of its own, for it keeps its temporary files where ``TMPDIR`` says.

    :param prefix: a conda environment whose package cache is still there.
    :param target: the tar.
    :param scratch: a folder for temporary files, with room for the tar.
    :raises InstallError: conda-pack failed.
    """
    _separate(prefix)
    # Without this file conda-pack gives its own script no time, and tarfile refuses that.
    (prefix / "conda-meta" / "history").touch()
    words = ["--prefix", str(prefix), "--output", str(target), "--format", "tar", "--quiet"]
    words += [word for pattern in LEFT_OUT for word in ("--exclude", pattern)]
    done = ask([sys.executable, "-c", _CONDA_PACK, *words], variables=os.environ | {"TMPDIR": str(scratch)})
    if done.code != 0 or not target.is_file():
        raise InstallError(
            "conda-pack could not pack the runtime",
            findings=done.last(),
            where=prefix,
            hint="see its message",
        )


def _separate(prefix: Path) -> None:
    """Give each file of an environment its own inode: conda-pack writes a broken tar of hard links."""
    seen = set()
    for folder, _, names in os.walk(prefix):
        for name in names:
            path = Path(folder, name)
            status = path.lstat()
            if status.st_nlink > 1 and status.st_ino in seen and not path.is_symlink():
                copy = path.with_name(f".{name}.copy")
                shutil.copy2(path, copy)
                copy.replace(path)
            seen.add(status.st_ino)


def write_archive(
    packed: Path, prefix: Path, target: Path, *, added: Mapping[str, bytes], meter: Meter
) -> RuntimeTree:
    """Write the reproducible archive.

    :param packed: what :func:`conda_pack` wrote.
    :param prefix: the environment's folder, whose path must not travel.
    :param target: ``runtime.tar.gz``.
    :param added: more programs, by path in the runtime.
    :param meter: advanced by bytes read.
    :raises InstallError: a binary file holds the folder's path, so the runtime couldn't be moved; or
        conda-pack's archive is broken.
    """
    size = 0
    with (
        tarfile.open(packed, "r:") as source,
        target.open("wb") as raw,
        gzip.GzipFile("", "wb", LEVEL, raw, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.GNU_FORMAT) as archive,
    ):
        members = {member.name: member for member in source}
        if CONDA_UNPACK not in members:
            raise InstallError("conda-pack's archive can't be read to its end", where=packed)
        names = sorted(_with_folders({*members, *added}))
        for name in names:
            member = members.get(name)
            if name in added:
                size += _add_file(archive, name, added[name], executable=True)
            elif member is None or member.isdir():
                archive.addfile(_entry(name, tarfile.DIRTYPE, 0o755))
            elif member.issym():
                entry = _entry(name, tarfile.SYMTYPE, 0o777)
                entry.linkname = member.linkname
                archive.addfile(entry)
            else:
                file = source.extractfile(member)
                data = _portable(file.read() if file else b"", os.fsencode(prefix), name)
                size += _add_file(archive, name, data, executable=bool(_mode(source, member) & 0o100))
                meter.advance(len(data))
    return RuntimeTree(size, len(names))


def _with_folders(names: set[str]) -> set[str]:
    """Return names with each folder above them."""
    return names | {str(folder) for name in names for folder in PurePosixPath(name).parents} - {"."}


def _mode(source: tarfile.TarFile, member: tarfile.TarInfo) -> int:
    """Return a file's mode; a hard link has that of what it is linked with."""
    return source.getmember(member.linkname).mode if member.islnk() else member.mode


def _portable(data: bytes, prefix: bytes, name: str) -> bytes:
    """Replace the scratch folder in a text file, and refuse it in a binary one."""
    if prefix not in data:
        return data
    if b"\0" in data:
        raise InstallError(
            f"the runtime can't be moved: {name} holds the path it was made at",
            hint="this is a defect of the package that brings the file",
        )
    return data.replace(prefix, PLACEHOLDER)


def _add_file(archive: tarfile.TarFile, name: str, data: bytes, *, executable: bool) -> int:
    entry = _entry(name, tarfile.REGTYPE, 0o755 if executable else 0o644)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))
    return len(data)


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    """Return a tar entry with a mode, and with owner and time normalised."""
    entry = tarfile.TarInfo(name)
    entry.type = kind
    entry.mode = mode
    return entry
