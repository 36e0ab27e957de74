"""What the store gives to a bundle: the environment's entry of the manifest, and the members of its tree."""

from __future__ import annotations

import bz2
import io
import os
import tarfile
import zipfile
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import msgspec

from bundler import manifest as manifests
from bundler.archive.member import FileSource, Member
from bundler.common.broken import BROKEN_JSON
from bundler.errors import DamagedError, FetchError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from bundler.artifact import Artifact
    from bundler.common.tables import Table
    from bundler.store import Store
    from bundler.workspace import EnvironmentLock, Workspace


BROKEN = (zipfile.BadZipFile, tarfile.TarError, OSError, EOFError, KeyError, ValueError, *BROKEN_JSON)


def environment_entry(
    environment: EnvironmentLock, store: Store, *, imports: Sequence[str] = ()
) -> manifests.Environment:
    """Return an environment's entry of the manifest, its packages in the order of their names.

    :param imports: modules that the rehearsal and ``check`` import.
    :raises FetchError: an artifact isn't in the store.
    :raises DamagedError: an artifact can't be read as a package.
    """
    known = store.table("installed")
    fresh: dict[str, list[int | str]] = {}
    packages = [_package(artifact, store, known, fresh) for artifact in environment.artifacts]
    known.update(fresh)
    md5_only = [store.tree_path(artifact.url) for artifact in environment.artifacts if artifact.md5]
    stack = environment.stack
    return manifests.Environment(
        name=environment.name,
        aliases=environment.aliases,
        platform=environment.platform,
        cuda=stack.cuda,
        python=stack.python,
        sglang=stack.sglang,
        torch=stack.torch,
        imports=tuple(imports),
        glibc=stack.glibc,
        md5_only=tuple(sorted(md5_only)) or msgspec.UNSET,
        packages=tuple(sorted(packages, key=lambda one: (one.kind, one.name, one.path))),
    )


def store_members(environments: Iterable[EnvironmentLock], store: Store) -> list[Member]:
    """Return the artifacts of all environments as members of the tree, each address once, sorted by path.

    :raises FetchError: an artifact isn't in the store.
    """
    artifacts = {artifact.url: artifact for one in environments for artifact in one.artifacts}
    members = (
        _member(_held(artifact, store), store.tree_path(artifact.url), store.sha256(artifact))
        for artifact in artifacts.values()
    )
    return sorted(members, key=lambda member: member.path)


def workspace_members(workspace: Workspace) -> list[Member]:
    """Return pixi's manifest and lock, unmodified, as members of the tree."""
    return [_member(path, path.name) for path in sorted(workspace.files)]


def _member(file: Path, tree_path: str, sha256: str | None = None) -> Member:
    return Member(tree_path, "file", file.stat().st_size, sha256=sha256, source=FileSource(file))


def _package(
    artifact: Artifact, store: Store, known: Table, fresh: dict[str, list[int | str]]
) -> manifests.Package:
    path = _held(artifact, store)
    sha256 = store.sha256(artifact)
    row = known.get(sha256) if sha256 else None
    if isinstance(row, list) and len(row) == 2:
        size, inodes = int(row[0]), int(row[1])
    else:
        size, inodes = installed_size(path)
        if sha256:
            fresh[sha256] = [size, inodes]
    return manifests.Package(
        kind=artifact.kind,
        name=artifact.name,
        version=artifact.version,
        build=artifact.build,
        path=store.tree_path(artifact.url),
        size=path.stat().st_size,
        sha256=sha256 or "",
        installed_bytes=size,
        inodes=inodes,
    )


def _held(artifact: Artifact, store: Store) -> Path:
    path = store.path(artifact.url)
    if not store.has(artifact):
        what = f"{artifact.label} is not in the store, or not whole"
        raise FetchError(what, where=path, hint="bundler fetch")
    return path


def installed_size(path: Path) -> tuple[int, int]:
    """Return the bytes that a package's files take once installed, and how many inodes.

    Folders that packages share (``lib``) are counted with each: the number is a bound, not a promise.

    :param path: a wheel, a ``.conda`` or a ``.tar.bz2``.
    :raises DamagedError: it can't be read as one.
    """
    try:
        if path.name.endswith(".whl"):
            return _count(_wheel_files(path))
        if path.name.endswith(".conda"):
            return _count(_conda_files(path))
        return _count(_tar_files(path))
    except BROKEN as problem:
        raise DamagedError(
            f"{path.name} can't be read as a package: {problem}",
            where=path,
            hint="fetch it again: bundler fetch --deep",
        ) from problem


def _count(files: Iterable[tuple[str, int]]) -> tuple[int, int]:
    total = count = 0
    folders: set[PurePosixPath] = set()
    for name, size in files:
        total += size
        count += 1
        folders.update(parent for parent in PurePosixPath(name).parents if str(parent) != ".")
    return total, count + len(folders)


def _wheel_files(path: Path) -> Iterator[tuple[str, int]]:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if not entry.is_dir():
                yield entry.filename, entry.file_size


def _conda_files(path: Path) -> Iterator[tuple[str, int]]:
    """Read ``info/paths.json`` of the zip's ``info-*.tar.zst``: a few kilobytes of a package of any size."""
    import zstandard

    with zipfile.ZipFile(path) as archive:
        inner = next(name for name in archive.namelist() if name.startswith("info-"))
        with archive.open(inner) as packed, zstandard.ZstdDecompressor().stream_reader(packed) as plain:
            data = io.BytesIO(plain.read())
    with tarfile.open(fileobj=data) as info:
        if "info/paths.json" in info.getnames():
            member = info.extractfile("info/paths.json")
            assert member is not None
            paths: list[dict[str, Any]] = msgspec.json.decode(member.read())["paths"]
            yield from ((str(entry["_path"]), int(entry.get("size_in_bytes", 0))) for entry in paths)
        yield from _tar_members(info)


def _tar_files(path: Path) -> Iterator[tuple[str, int]]:
    with bz2.open(path) as plain, tarfile.open(fileobj=plain, mode="r|") as archive:
        yield from _tar_members(archive)


def _tar_members(archive: tarfile.TarFile) -> Iterator[tuple[str, int]]:
    for member in archive:
        if not member.isdir():
            yield os.path.normpath(member.name), member.size
