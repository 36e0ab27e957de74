"""What ``runtime.tar.gz`` is made of: wheels by their own metadata, conda packages by the lock."""

from __future__ import annotations

import re
import tarfile
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote, urlsplit

import yaml

from bundler.common.digest import sha256_of
from bundler.errors import DamagedError
from bundler.report.package_metadata import NO_METADATA, UNREADABLE, PackageMetadata, wheel_metadata
from bundler.workspace import OWN_ENVIRONMENT, normalised

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Any

RUNTIME = "runtime.tar.gz"
_LOCK = "bundler/_workspace/pixi.lock"
"""bundler's own lock, in its package."""
_METADATA = re.compile(r"lib/python[^/]+/site-packages/([\w.]+)-([\w.+!]+)\.dist-info/METADATA")
LARGEST_TEXT = 32 * 2**20


@dataclass(frozen=True, kw_only=True)
class RuntimePackage:
    """A package that the runtime holds."""

    kind: Literal["conda", "wheel"]
    name: str
    version: str
    build: str = ""
    url: str = ""
    size: int = 0
    sha256: str = ""
    metadata: PackageMetadata = NO_METADATA


def read_runtime(folders: Sequence[Path], sums: Mapping[str, str], lock: bytes) -> list[RuntimePackage]:
    """Return what the runtime beside the volumes is made of.

    :param sums: the bundle's: the archive is compared with them before it is opened.
    :param lock: the workspace's ``pixi.lock``; bundler's own, in the runtime, counts where this one has no
        environment ``bundler``.
    :raises DamagedError: it isn't there, or isn't what the sums name.
    """
    path = next((folder / RUNTIME for folder in folders if (folder / RUNTIME).is_file()), None)
    if path is None:
        raise DamagedError(f"{RUNTIME} is not here")
    if sha256_of(path) != sums.get(RUNTIME):
        raise DamagedError(f"{RUNTIME} is not the one that SHA256SUMS names", where=path)
    try:
        texts = _texts(path)
        locked = [*_locked(lock)] or [*_locked(texts.pop(_LOCK, b""))]
    except (*UNREADABLE, yaml.YAMLError) as problem:
        raise DamagedError(f"{RUNTIME} can't be read: {problem}", where=path) from problem
    wheels = {one.name: one for one in locked if one.kind == "wheel"}
    found = [one for one in locked if one.kind == "conda"]
    for (name, version), data in sorted(_named(texts)):
        known = wheels.get(name)
        same = known is not None and known.version == version
        found.append(
            RuntimePackage(
                kind="wheel",
                name=name,
                version=version,
                url=known.url if known and same else "",
                size=known.size if known and same else 0,
                sha256=known.sha256 if known and same else "",
                metadata=wheel_metadata(data),
            )
        )
    return found


def _texts(path: Path) -> dict[str, bytes]:
    """Return the metadata of the runtime's wheels, and bundler's own lock, by path."""
    found = {}
    with tarfile.open(path, "r|gz") as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            wanted = _METADATA.fullmatch(name) or name.endswith(f"/{_LOCK}")
            if member.isfile() and member.size <= LARGEST_TEXT and wanted:
                part = archive.extractfile(member)
                found[_LOCK if name.endswith(_LOCK) else name] = part.read() if part else b""
    return found


def _named(texts: Mapping[str, bytes]) -> Iterator[tuple[tuple[str, str], bytes]]:
    for path, data in texts.items():
        match = _METADATA.fullmatch(path)
        if match:
            yield (normalised(match[1]), match[2]), data


def unhashed_files(lock: bytes) -> frozenset[str]:
    """Return the names of the packages' files for which a ``pixi.lock`` names no digest.

    :raises DamagedError: it is none.
    """
    try:
        rows = _load(lock).get("packages", ())
        return frozenset(
            file_name(str(row.get("pypi") or row.get("conda")))
            for row in rows
            if ("pypi" in row or "conda" in row) and not (row.get("sha256") or row.get("md5"))
        )
    except (*UNREADABLE, yaml.YAMLError) as problem:
        raise DamagedError(f"pixi.lock can't be read: {problem}") from problem


def file_name(address: str) -> str:
    """Return the last part of an address, decoded; an empty word where there is none."""
    return PurePosixPath(unquote(urlsplit(address).path)).name


def _load(data: bytes) -> dict[str, Any]:
    # All scalars as text: a digest of digits alone is no number.
    found: dict[str, Any] = yaml.load(data, Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader)) or {}
    return found


def _locked(data: bytes) -> Iterator[RuntimePackage]:
    """Yield the packages of the environment ``bundler`` of a lock; none where it has no such environment."""
    lock = _load(data)
    environment = lock.get("environments", {}).get(OWN_ENVIRONMENT)
    if environment is None:
        return
    wanted = {
        str(address) for rows in environment["packages"].values() for row in rows for address in row.values()
    }
    for row in lock.get("packages", ()):
        url = str(row.get("conda") or row.get("pypi") or "")
        if url not in wanted:
            continue
        name, version, build = _identity(url, row)
        yield RuntimePackage(
            kind="conda" if "conda" in row else "wheel",
            name=name,
            version=version,
            build=build,
            url=url,
            size=int(row.get("size") or 0),
            sha256=str(row.get("sha256") or ""),
            metadata=PackageMetadata(license=str(row.get("license") or "")),
        )


def _identity(url: str, row: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return name, version and build: a conda package's file is called after them."""
    if "conda" not in row:
        return normalised(str(row.get("name", ""))), str(row.get("version", "")), ""
    stem = file_name(url).removesuffix(".conda").removesuffix(".tar.bz2")
    name, version, build = stem.rsplit("-", 2)
    return name, version, build
