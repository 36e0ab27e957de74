"""Conda packages of a channel in a folder: put into the package cache, as no mirror stands for a folder.

pixi and rattler read a ``file://`` address past every mirror, from a folder that the target doesn't have.
What their cache holds with the locked digest they don't ask for at all.
"""

from __future__ import annotations

import shutil
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bundler.common.digest import sha256_of
from bundler.errors import InstallError
from bundler.store import REFILL

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bundler.artifact import Artifact
    from bundler.store import Store

REVISION = 1
"""The cache entry's revision: rattler counts it up when it replaces one."""


def seed(artifacts: Iterable[Artifact], store: Store, cache: Path) -> int:
    """Unpack the packages of folders into a package cache, each after its digest was checked.

    :param cache: rattler's ``pkgs``.
    :returns: how many packages are of a folder.
    :raises InstallError: one is damaged, has no hash, or py-rattler isn't here to unpack it.
    """
    wanted = [one for one in artifacts if one.is_in_folder]
    for artifact in wanted:
        path = store.path(artifact.url)
        if artifact.pinned is None or not store.verify(artifact):
            raise InstallError(
                "artifacts of the store are not what the lock promises",
                findings=[f"{artifact.label}: {store.relative(artifact.url)}"],
                where=store.root,
                hint=REFILL,
            )
        sha256 = artifact.sha256 or sha256_of(path)
        _unpack(path, cache, _key(artifact), bytes.fromhex(sha256))
    return len(wanted)


def _key(artifact: Artifact) -> str:
    """Return a package's name in the cache."""
    return f"{artifact.name}-{artifact.version}-{artifact.build}"


def _unpack(archive: Path, cache: Path, key: str, sha256: bytes) -> None:
    try:
        from rattler.package_streaming import extract
    except ImportError as problem:
        raise InstallError(
            "a channel in a folder needs py-rattler to be installed from",
            where=archive,
            hint="start with the bundle's install.sh, which brings it",
        ) from problem
    target, lock = cache / key, cache / f"{key}.lock"
    state = struct.pack(">Q", REVISION) + sha256
    if target.is_dir() and lock.is_file() and lock.read_bytes()[8:] == sha256:
        return
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".bundler-", dir=cache, ignore_cleanup_errors=True) as folder:
        extract(archive, Path(folder) / "package")
        if target.exists():
            shutil.rmtree(target)
        (Path(folder) / "package").replace(target)
    lock.write_bytes(state)
