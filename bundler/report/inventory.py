"""All that a bundle carries, each thing with its origin and licence, read out of the bundle itself."""

from __future__ import annotations

import hashlib
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bundler.archive.stored_file import FrameCache, open_stored
from bundler.common.progress import SILENT
from bundler.errors import BundlerError, DamagedError, MissingVolumeError
from bundler.installation import ARTIFACTS
from bundler.report.licences import Licence, understand
from bundler.report.package_metadata import NO_METADATA, UNREADABLE, PackageMetadata, read_metadata
from bundler.report.runtime_packages import RuntimePackage, file_name, read_runtime, unhashed_files
from bundler.workspace import LOCK

if TYPE_CHECKING:
    from bundler.archive.bundle import Bundle
    from bundler.common.progress import Reporter
    from bundler.manifest import Entry, Manifest, Model, Package

Fault = Literal["missing", "damaged", "unreadable"]


@dataclass(frozen=True, kw_only=True)
class PackageItem:
    """A conda package or a wheel, with what it says of itself."""

    kind: Literal["conda", "wheel"]
    name: str
    version: str
    build: str = ""
    environments: tuple[str, ...] = ()
    """Those that install it; none for what the runtime is made of."""
    url: str = ""
    """Where it was downloaded; empty where that isn't known."""
    size: int = 0
    """Bytes of its file; 0 where that isn't known."""
    sha256: str = ""
    metadata: PackageMetadata = NO_METADATA
    licence: Licence
    fault: Fault | None = None
    """Why its metadata couldn't be read: its volume isn't here, is damaged, or the package is none."""
    problem: str = ""
    """The same in words."""

    @property
    def where(self) -> str:
        """The environments' names, or the runtime."""
        return ", ".join(self.environments) or "runtime"


@dataclass(frozen=True, kw_only=True)
class ModelItem:
    """A model with its files."""

    model: Model
    licence: Licence
    files: tuple[Entry, ...]

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(entry.size for entry in self.files)


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """What a bundle carries."""

    bundle: Bundle
    packages: tuple[PackageItem, ...]
    """Those of environments, then those of the runtime; by name."""
    models: tuple[ModelItem, ...]
    problems: tuple[str, ...] = ()
    """What beside packages is here and can't be read."""
    unread: tuple[str, ...] = ()
    """What couldn't be read because its volume isn't here."""
    unhashed: tuple[str, ...] = ()
    """Packages for which the lock names no digest, which were allowed by hand."""
    md5_only: tuple[str, ...] = ()
    """Packages that the lock fixes by an md5 alone."""

    @property
    def digest(self) -> str:
        """The sha256 of ``SHA256SUMS``: the one number from which all of a bundle's bytes follow."""
        return hashlib.sha256(self.bundle.sums_data).hexdigest()

    @property
    def damaged(self) -> tuple[str, ...]:
        """What is there and isn't what the bundle says."""
        found = [one for one in self.packages if one.fault in ("damaged", "unreadable")]
        return (*(f"{one.name} {one.version}: {one.problem}" for one in found), *self.problems)


def take_inventory(bundle: Bundle, reporter: Reporter = SILENT) -> Inventory:
    """Read what a bundle carries: each package's own metadata out of the volumes that are here.

    What can't be read is in the inventory with its problem; nothing is raised for it.
    """
    manifest = bundle.manifest
    tree = {entry.path: entry for entry in manifest.tree}
    cache = FrameCache(bundle)
    rows = {package.path: package for one in manifest.environments for package in one.packages}
    # In the stream's order, so that each frame is read once.
    order = sorted(rows, key=lambda path: tree[path].offset)
    packages = []
    with reporter.phase("read", sum(row.size for row in rows.values())) as meter:
        for path in order:
            names = tuple(
                one.name
                for one in manifest.environments
                if any(package.path == path for package in one.packages)
            )
            packages.append(_package(cache, tree[path], rows[path], names))
            meter.advance(rows[path].size)
    beside = _beside_packages(bundle, cache, tree.get(LOCK))
    return Inventory(
        bundle=bundle,
        packages=(*sorted(packages, key=_by_name), *sorted(beside.runtime, key=_by_name)),
        models=tuple(_model(model, manifest.tree) for model in manifest.models),
        problems=beside.problems,
        unread=(*(one.problem for one in packages if one.fault == "missing"), *beside.unread),
        unhashed=tuple(one.name for one in packages if file_name(one.url) in beside.unhashed),
        md5_only=tuple(sorted(_md5_only(manifest))),
    )


def _md5_only(manifest: Manifest) -> set[str]:
    return {
        row.name
        for environment in manifest.environments
        for row in environment.packages
        if row.path in (environment.md5_only or ())
    }


def _by_name(package: PackageItem) -> tuple[str, str]:
    return package.name.lower(), package.kind


def _package(cache: FrameCache, entry: Entry, row: Package, names: tuple[str, ...]) -> PackageItem:
    metadata, fault, problem = _metadata(cache, entry, row)
    return PackageItem(
        kind=row.kind,
        name=row.name,
        version=row.version,
        build=row.build,
        environments=names,
        url=address_of(row.path),
        size=row.size,
        sha256=row.sha256,
        metadata=metadata,
        licence=licence_of(row.kind, metadata),
        fault=fault,
        problem=problem,
    )


def _metadata(cache: FrameCache, entry: Entry, row: Package) -> tuple[PackageMetadata, Fault | None, str]:
    try:
        with open_stored(cache, entry) as file:
            return read_metadata(row.kind, row.path, file), None, ""
    except MissingVolumeError as problem:
        return NO_METADATA, "missing", problem.what
    except DamagedError as problem:
        return NO_METADATA, "damaged", problem.what
    except UNREADABLE as problem:
        return NO_METADATA, "unreadable", f"its metadata can't be read: {problem}"


def licence_of(kind: Literal["conda", "wheel"], metadata: PackageMetadata) -> Licence:
    """Return the licence that a package's metadata states."""
    if kind == "conda":
        return understand(metadata.license, "conda")
    word = "License-Expression" if metadata.license_is_expression else "License"
    return understand(metadata.license, word, metadata.classifiers)


def address_of(path: str) -> str:
    """Return the address that a file of the store came from, or an empty word for a channel in a folder.

    The store keeps no scheme: channels and indexes are taken to be at ``https``. A port became ``host_8080``.
    """
    host, _, rest = path.removeprefix(f"{ARTIFACTS}/").partition("/")
    if not path.startswith(f"{ARTIFACTS}/") or not rest or host == "file":
        return ""
    name, _, port = host.rpartition("_")
    host = f"{name}:{port}" if name and port.isdigit() else host
    return f"https://{host}/{urllib.parse.quote(rest)}"


@dataclass(frozen=True, kw_only=True)
class _Beside:
    """What the lock and the runtime tell."""

    runtime: tuple[PackageItem, ...] = ()
    unhashed: frozenset[str] = frozenset()
    problems: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()


def _beside_packages(bundle: Bundle, cache: FrameCache, lock: Entry | None) -> _Beside:
    """Read the workspace's lock and, by it, the runtime, which isn't told without the lock."""
    try:
        text = open_stored(cache, lock).read() if lock is not None else b""
        unhashed = unhashed_files(text)
        runtime = read_runtime(bundle.folders, bundle.sums, text) if bundle.manifest.runtime else []
    except MissingVolumeError as problem:
        return _Beside(unread=(f"{LOCK}, and what the runtime is made of: {problem.what}",))
    except BundlerError as problem:
        return _Beside(problems=(problem.what,))
    return _Beside(runtime=tuple(map(_of_runtime, runtime)), unhashed=unhashed)


def _of_runtime(one: RuntimePackage) -> PackageItem:
    return PackageItem(
        kind=one.kind,
        name=one.name,
        version=one.version,
        build=one.build,
        url=one.url,
        size=one.size,
        sha256=one.sha256,
        metadata=one.metadata,
        licence=licence_of(one.kind, one.metadata),
    )


def _model(model: Model, tree: tuple[Entry, ...]) -> ModelItem:
    folder = f"{model.path}/"
    return ModelItem(
        model=model,
        licence=understand(model.facts.license or "", "model card"),
        files=tuple(entry for entry in tree if entry.kind == "file" and entry.path.startswith(folder)),
    )
