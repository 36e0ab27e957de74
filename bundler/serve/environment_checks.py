"""The installation as the server will meet it: interpreter, compiler, libraries, caches."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from bundler.common.units import size_text
from bundler.host.facts import find_libraries
from bundler.host.finding import fail, good, warn
from bundler.host.needs import version_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bundler.host.finding import Finding
    from bundler.serve.launch import Served, ServerLaunch

CACHE_ROOM = 2 * 10**9
"""Bytes that compiled kernels may take at the first start."""
SPECULATING = 48
"""Requests at once that SGLang allows where it speculates and isn't told otherwise."""
INSTALL_AGAIN = "; or, where the environment should have it, install it anew: bundler install"


def writable_folder(root: Path, inside: str) -> Path:
    """Return a folder of the installation, or the user's own where the installation belongs to another.

    :param root: the installation.
    :param inside: the folder's place in it: ``.bundler/cache``.
    """
    folder = root / inside
    if not root.exists() or can_write(folder) is None:
        return folder
    return user_folder(root, Path(inside).name)


def user_folder(root: Path, name: str) -> Path:
    """Return this user's own folder for an installation that another's is.

    :param name: ``cache`` or ``run``.
    """
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    place = f"{root.name}-{hashlib.sha256(str(root.absolute()).encode()).hexdigest()[:8]}"
    return Path(base) / "bundler" / place / name


def can_write(folder: Path) -> str | None:
    """Say why nothing can be written in a folder, which need not exist yet; ``None`` where it can."""
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        return f"{there} is no folder"
    if not os.access(there, os.W_OK | os.X_OK):
        return f"{there} can't be written by user {os.getuid()}"
    if os.statvfs(there).f_flag & os.ST_RDONLY:
        return f"{there} is on a read-only file system"
    return None


def installed_sglang(prefix: Path | None) -> str | None:
    """Return the version of SGLang in an environment's folder, without starting its interpreter."""
    found = sorted(prefix.glob("lib/python3*/site-packages/sglang-*.dist-info")) if prefix else []
    return found[0].name.removesuffix(".dist-info").partition("-")[2] if found else None


def compiler(variables: Mapping[str, str]) -> str | None:
    """Return the C compiler as Triton finds it: ``CC``, else gcc or clang on PATH."""
    path = variables.get("PATH", os.defpath)
    named = variables.get("CC")
    if named:
        words = shlex.split(named)
        return shutil.which(words[0], path=path) if words else None
    return shutil.which("gcc", path=path) or shutil.which("clang", path=path)


def check_place(target: Served, variables: Mapping[str, str]) -> Iterator[Finding]:
    """Check interpreter, compiler, libnuma and caches of the place where the server will run.

    :param variables: the variables that the server will have.
    """
    software = target.software
    # An interpreter from elsewhere told it; what a manifest says of an environment isn't taken on trust.
    sglang = software.stack.sglang if software.probed else installed_sglang(software.prefix)
    if not software.python.exists():
        fix = "install the environment: bundler install"
        yield fail("environment", "interpreter", "not there", str(software.python), fix)
    elif sglang is None:
        fix = "an interpreter that has SGLang: --python PATH" + ("" if software.probed else INSTALL_AGAIN)
        yield fail("environment", "interpreter", f"{software.python} has no SGLang", "sglang", fix)
    else:
        yield good("environment", "interpreter", f"{software.python} (SGLang {sglang})")
    if (program := compiler(variables)) is None:
        fix = "lock gcc_linux-64 in the environment, or install gcc on the host"
        yield fail("environment", "C compiler", "none", "one in CC or on PATH: Triton needs it", fix)
    else:
        yield good("environment", "C compiler", program)
    folders = (software.activated / "lib",) if software.activated else ()
    if (library := find_libraries(("libnuma.so.1",), folders, variables)["libnuma.so.1"]) is None:
        fix = "lock libnuma in the environment, or install libnuma1 (numactl-libs) on the host"
        # Seen of the kernels of SGLang 0.5.7; newer ones may do without.
        judge = fail if version_in(sglang, "<0.5.11") else warn
        yield judge("environment", "libnuma.so.1", "not found", "sgl_kernel is linked with it", fix)
    else:
        yield good("environment", "libnuma.so.1", library)
    yield _caches(target.caches)


def check_openness(launch: ServerLaunch, *, key: bool = False) -> Finding:
    """Warn where anybody on the network may ask the server.

    :param key: whether clients must give one, beside what the command line shows.
    """
    flags = {word.partition("=")[0] for word in launch.argv}
    if launch.host not in ("0.0.0.0", "::"):
        return good("network", "access", f"listens on {launch.host}")
    if key or flags & {"--api-key", "--config"}:
        return good("network", "access", f"listens on every interface ({launch.host}), with a key")
    fix = "--host 127.0.0.1 keeps it to this host, --api-key-file FILE asks for a key"
    seen = f"listens on every interface ({launch.host}) and asks for no key"
    return warn("network", "access", seen, "a key, or this host alone", fix)


def check_speculation(launch: ServerLaunch) -> Iterator[Finding]:
    """Say how many requests are served at once where speculation makes SGLang bound them by itself."""
    flags = {word.partition("=")[0] for word in launch.argv}
    if "--speculative-algorithm" in flags and not flags & {"--max-running-requests", "--config"}:
        seen = f"{SPECULATING} at once, as it speculates; -- --max-running-requests N sets it"
        yield good("serving", "requests", seen)


def check_home(launch: ServerLaunch) -> Iterator[Finding]:
    """Say where the home is that several GPUs need, if it isn't the user's own."""
    if launch.tp_size > 1 and (home := launch.added.get("HOME")):
        yield good("environment", "home folder", f"HOME can't be written: the server gets {home}")


def _caches(folder: Path) -> Finding:
    if problem := can_write(folder):
        fix = "set XDG_CACHE_HOME to a folder that this user can write"
        return fail("environment", "kernel caches", problem, f"{folder} writable", fix)
    existing = next(one for one in (folder, *folder.parents) if one.exists())
    if (free := shutil.disk_usage(existing).free) < CACHE_ROOM:
        seen = f"{size_text(free)} free at {folder}"
        return warn("environment", "kernel caches", seen, size_text(CACHE_ROOM), "free some space")
    return good("environment", "kernel caches", str(folder))
