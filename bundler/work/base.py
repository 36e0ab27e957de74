"""What a delta builds on: a bundle, a manifest alone, or an installation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bundler import manifest as manifests
from bundler.archive import validate
from bundler.archive.bundle import Bundle, find_bundle
from bundler.archive.member import FileSource
from bundler.common.digest import sha256_of
from bundler.common.durable import holds_file
from bundler.installation import RECEIPT, Installation
from bundler.manifest import Base

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from bundler.archive.member import Member
    from bundler.common.progress import Reporter
    from bundler.manifest import Entry


@dataclass(frozen=True)
class DeltaBase:
    """A base, by what it has."""

    named: Base
    """Its name and its manifest's sha256, as the delta's manifest has them."""
    contents: frozenset[tuple[str, int]]
    """sha256 and size of each file."""

    def notes(self) -> Iterator[str]:
        """Say in README.txt what the delta needs."""
        yield f"A delta: the files that it doesn't hold are those of {self.named.name}"
        yield f"  (manifest.json with sha256 {self.named.manifest_sha256})."
        yield "  It is unpacked to an installation of that, or with --from INSTALLATION to another place."


def read_base(place: Path) -> DeltaBase:
    """Read what a delta is to build on. A delta can be a base itself: its tree is the full one.

    :param place: a bundle's folder, a manifest alone, or an installation.
    :raises InputError: it is none of these, or can't be used.
    """
    if place.is_file():
        manifest, digest = manifests.read_with_digest(place)
        validate.check(manifest, place)
        return _base(manifest.name, digest, manifest.tree)
    if holds_file(place, RECEIPT):
        found = Installation(place)
        last = found.receipt.bundles[-1]
        return _base(last.name, last.manifest_sha256, found.entries.values())
    with Bundle.open([find_bundle(place)]) as bundle:
        return _base(bundle.name, bundle.manifest_sha256, bundle.manifest.tree)


def _base(name: str, digest: str, tree: Iterable[Entry]) -> DeltaBase:
    contents = frozenset((entry.sha256, entry.size) for entry in tree if entry.kind == "file" and entry.size)
    return DeltaBase(Base(name=name, manifest_sha256=digest), contents)


def known_by_digest(members: Iterable[Member], base: DeltaBase, reporter: Reporter) -> list[Member]:
    """Hash those files whose publisher gives no digest and whose size the base has; return all."""
    found = list(members)
    sizes = {size for _, size in base.contents}
    doubtful = {
        number: member.source.path
        for number, member in enumerate(found)
        if isinstance(member.source, FileSource) and member.sha256 is None and member.size in sizes
    }
    if doubtful:
        total = sum(found[number].size for number in doubtful)
        with reporter.phase("compare with the base", total) as meter:
            for number, path in doubtful.items():
                found[number] = replace(found[number], sha256=sha256_of(path, meter.advance))
    return found
