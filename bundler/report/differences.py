"""What differs between two bundles or installations, by their manifests alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import msgspec

from bundler import manifest as manifests
from bundler.archive import validate
from bundler.archive.bundle import Bundle, find_bundle
from bundler.errors import InputError
from bundler.installation import JOURNAL, RECEIPT, Installation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from bundler.manifest import Entry, Environment, Manifest, Model

Word = Literal["added", "removed", "changed"]
Key = tuple[str, str, str]
"""Environment, kind and name of a package."""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a bundle or an installation holds."""

    kind: Literal["bundle", "installation", "manifest"]
    name: str
    environments: Mapping[str, Environment]
    models: Mapping[str, Model]
    files: Mapping[str, Entry]
    """The files that are there, by path."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files.values())

    @property
    def digests(self) -> dict[str, int]:
        """The sizes of the files' contents by sha256: what is there twice counts once."""
        return {entry.sha256: entry.size for entry in self.files.values()}


def contents_of(place: Path) -> Contents:
    """Read what a bundle's folder, an installation or a ``manifest.json`` holds.

    :raises InputError: it is none, or can't be read.
    :raises DamagedError: a bundle's manifest isn't the one that its sums name.
    """
    if place.is_file():
        manifest = manifests.read(place)
        validate.check(manifest, place)
        return _of_manifests("manifest", manifest.name, [manifest])
    if (place / RECEIPT).is_file():
        return _of_installation(Installation(place))
    if (place / JOURNAL).is_file():
        raise InputError(
            "a bundle is unpacked here in part; only a whole one can be compared",
            where=place,
            hint=f"finish it: bundler unpack BUNDLE {place}",
        )
    with Bundle.open([find_bundle(place)]) as bundle:
        return _of_manifests("bundle", bundle.name, [bundle.manifest])


def _of_installation(found: Installation) -> Contents:
    there = {file.path for file in found.receipt.files}
    return Contents(
        kind="installation",
        name=str(found.home),
        environments=found.environments,
        models=found.models,
        # A store that was pruned is in the manifests, and not there any more.
        files={path: entry for path, entry in found.entries.items() if path in there},
    )


def _of_manifests(kind: Literal["bundle", "manifest"], name: str, found: Iterable[Manifest]) -> Contents:
    """Join what manifests say; of two of a name the later one's counts."""
    found = list(found)
    return Contents(
        kind=kind,
        name=name,
        environments={one.name: one for manifest in found for one in manifest.environments},
        models={one.spec.name: one for manifest in found for one in manifest.models},
        files={one.path: one for manifest in found for one in manifest.tree if one.kind == "file"},
    )


class PackageChange(msgspec.Struct, frozen=True, kw_only=True):
    """A package of an environment that isn't the same on both sides."""

    change: Word
    environment: str
    kind: str
    name: str
    before: str | None
    """Version, and of a conda package its build; ``None`` where it is new."""
    after: str | None


class ModelChange(msgspec.Struct, frozen=True, kw_only=True):
    """A model that isn't the same on both sides."""

    change: Word
    name: str
    before: str | None
    """Origin and revision."""
    after: str | None
    files: int
    """How many of its files are new or changed."""
    bytes: int
    """Bytes of these."""


class FileChanges(msgspec.Struct, frozen=True, kw_only=True):
    """Files, by path."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    """In both, with other content."""
    added_bytes: int
    removed_bytes: int
    changed_bytes: int
    """Of the later content."""


class Delta(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle would have to carry to make B where A is."""

    files: int
    """Contents whose sha256 isn't in A, each counted once."""
    bytes: int
    """Bytes of these, uncompressed."""
    whole: int
    """Bytes of all contents of B, each counted once."""


class Differences(msgspec.Struct, frozen=True, kw_only=True):
    """All that differs."""

    before: str
    after: str
    packages: tuple[PackageChange, ...]
    models: tuple[ModelChange, ...]
    files: FileChanges
    before_bytes: int
    """Bytes of A's files."""
    after_bytes: int
    delta: Delta


def compare_contents(before: Contents, after: Contents) -> Differences:
    """Return what differs between A, before, and B, after."""
    return Differences(
        before=before.name,
        after=after.name,
        packages=tuple(_packages(before, after)),
        models=tuple(_models(before, after)),
        files=_files(before.files, after.files),
        before_bytes=before.size,
        after_bytes=after.size,
        delta=_delta(before, after),
    )


def _packages(before: Contents, after: Contents) -> Iterable[PackageChange]:
    old, new = _versions(before), _versions(after)
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            environment, kind, name = key
            yield PackageChange(
                change=_word(key in old, key in new),
                environment=environment,
                kind=kind,
                name=name,
                before=old.get(key),
                after=new.get(key),
            )


def _versions(contents: Contents) -> dict[Key, str]:
    return {
        (environment.name, one.kind, one.name): f"{one.version} {one.build}".strip()
        for environment in contents.environments.values()
        for one in environment.packages
    }


def _word(old: bool, new: bool) -> Word:
    return "changed" if old and new else "added" if new else "removed"


def _models(before: Contents, after: Contents) -> Iterable[ModelChange]:
    for name in sorted(before.models.keys() | after.models.keys()):
        old, new = before.models.get(name), after.models.get(name)
        had, has = _files_of(before, old), _files_of(after, new)
        changed = [
            entry for path, entry in has.items() if path not in had or had[path].sha256 != entry.sha256
        ]
        if _revision(old) != _revision(new) or changed or had.keys() != has.keys():
            yield ModelChange(
                change=_word(old is not None, new is not None),
                name=name,
                before=_revision(old),
                after=_revision(new),
                files=len(changed),
                bytes=sum(entry.size for entry in changed),
            )


def _revision(model: Model | None) -> str | None:
    if model is None:
        return None
    return f"{model.origin} @ {model.revision}" if model.revision else model.origin


def _files_of(contents: Contents, model: Model | None) -> dict[str, Entry]:
    if model is None:
        return {}
    folder = f"{model.path}/"
    return {
        path.removeprefix(folder): entry for path, entry in contents.files.items() if path.startswith(folder)
    }


def _files(old: Mapping[str, Entry], new: Mapping[str, Entry]) -> FileChanges:
    added = sorted(new.keys() - old.keys())
    removed = sorted(old.keys() - new.keys())
    changed = sorted(path for path in old.keys() & new.keys() if old[path].sha256 != new[path].sha256)
    return FileChanges(
        added=tuple(added),
        removed=tuple(removed),
        changed=tuple(changed),
        added_bytes=sum(new[path].size for path in added),
        removed_bytes=sum(old[path].size for path in removed),
        changed_bytes=sum(new[path].size for path in changed),
    )


def _delta(before: Contents, after: Contents) -> Delta:
    there, wanted = before.digests, after.digests
    lacking = [size for digest, size in wanted.items() if digest not in there]
    return Delta(files=len(lacking), bytes=sum(lacking), whole=sum(wanted.values()))
