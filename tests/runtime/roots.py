"""A root without Python: the host's own small tools and glibc, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.runtime.mounts import needs_mounts

TOOLS = (
    *("sh", "tar", "gzip", "sha256sum", "uname", "df", "du", "mkdir", "mv", "rm"),
    *("chmod", "dirname", "readlink", "cat", "sync", "id", "ls"),
)
"""What install.sh needs."""
GLIBC = (
    *("libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0"),
    *("librt.so.1", "libutil.so.1", "libresolv.so.2"),
)
SHELLS = ("dash", "busybox")


def find_static_busybox() -> Path | None:
    """Return a busybox that needs no library, as Debian's package busybox-static has it."""
    found = shutil.which("busybox")
    if found is None or shutil.which("ldd") is None:
        return None
    answer = subprocess.run(["ldd", found], check=False, capture_output=True, text=True)
    return Path(found) if "not a dynamic executable" in answer.stdout + answer.stderr else None


def shell_parameters() -> list[object]:
    """Return the shells as pytest's parameters; one that isn't here is skipped, with the reason."""
    here = {name: shutil.which(name) is not None for name in SHELLS}
    return [
        pytest.param(
            name,
            marks=[
                needs_mounts,
                pytest.mark.skipif(not here[name], reason=f"no {name} here (a Debian package)"),
            ],
        )
        for name in SHELLS
    ]


def make_root(folder: Path, shell: str, *, glibc: bool = True) -> Path:
    """Make a root file system.

    :param shell: ``busybox`` takes all its tools from busybox; ``dash`` takes them from the host.
    :param glibc: whether the runtime's C library is there.
    """
    for name in ("bin", "lib64", "tmp", "opt", "proc", "dev", "media/disk"):
        (folder / name).mkdir(parents=True)
    if shell == "busybox":
        _copy_program(folder, "busybox", "busybox")
        for tool in (*TOOLS, "grep"):
            (folder / "bin" / tool).symlink_to("busybox")
    else:
        for tool in TOOLS:
            _copy_program(folder, shell if tool == "sh" else tool, tool)
    if glibc:
        _copy_glibc(folder)
    return folder


def _copy_program(folder: Path, name: str, target: str) -> None:
    """Copy a program and its libraries."""
    found = shutil.which(name)
    assert found is not None, f"{name} is not on this machine"
    shutil.copy(found, folder / "bin" / target)
    answer = subprocess.run(["ldd", found], check=False, capture_output=True, text=True)
    for word in answer.stdout.split():
        if word.startswith("/") and Path(word).is_file():
            _copy_library(folder, Path(word))


def _copy_glibc(folder: Path) -> None:
    answer = subprocess.run(
        ["ldd", shutil.which("sh") or "/bin/sh"], check=True, capture_output=True, text=True
    )
    loader = next(word for word in answer.stdout.split() if "ld-linux" in word)
    library = next(Path(word) for word in answer.stdout.split() if word.endswith("/libc.so.6"))
    _copy_library(folder, Path(loader))
    for name in GLIBC:
        if (library.parent / name).exists():
            _copy_library(folder, library.parent / name)


def _copy_library(folder: Path, path: Path) -> None:
    target = folder / str(path).lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copy(path.resolve(), target)


def entering(root: Path, disk: Path) -> str:
    """Return the lines of sh that mount a bundle's disk in a root, read-only and noexec, and ``/proc``."""
    return "\n".join(
        [
            f"mount --bind '{disk}' '{root}/media/disk'",
            f"mount -o remount,bind,ro,noexec '{root}/media/disk'",
            f"mount -t proc proc '{root}/proc'",
            f"mount --bind /dev '{root}/dev'",
        ]
    )
