"""A model's source, and what it gives to a bundle."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from bundler import manifest as manifests
from bundler.archive.member import Member
from bundler.collect.models.completeness import prove
from bundler.collect.models.reader import folder_reader
from bundler.common.progress import SILENT
from bundler.installation import WEIGHTS
from bundler.model import ModelFacts

if TYPE_CHECKING:
    from pathlib import Path

    from bundler.collect.models.folder import FolderSource
    from bundler.collect.models.hub import HubModel
    from bundler.common.progress import Reporter

LICENSES = ("license*", "licence*", "notice*", "use_policy*", "copying*", "readme.md")
"""Licence and card, in lower case."""
JOBS = 4
"""Files fetched at once."""


ModelSource: TypeAlias = "FolderSource | HubModel"
"""Where a model's files come from: a folder or a hub."""


@dataclass(frozen=True, slots=True)
class CarriedModel:
    """A model, proved whole: its entry in the bundle's manifest, and its members of the tree."""

    entry: manifests.Model
    members: tuple[Member, ...]

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(member.size for member in self.members)


def carry(
    source: ModelSource,
    weights: Path,
    *,
    reporter: Reporter = SILENT,
    jobs: int = JOBS,
    rehash: bool = False,
    stream: bool = False,
) -> CarriedModel:
    """Fetch a model, prove it whole, and return what the archive writes.

    :param weights: the workspace's ``weights`` folder; a model of a folder is read where it lies.
    :param stream: leave the files on the hub until the archive reads them.
    :raises BundlerError: as the source's ``fetch``, ``stream`` and :func:`prove`.
    """
    if stream:
        reader, sources = source.stream()
    else:
        folder = source.fetch(weights, reporter=reporter, jobs=jobs, rehash=rehash)
        reader, sources = folder_reader(folder, source.listing), source.members(weights)
    with reporter.phase(f"prove {source.spec.name} whole", None, unit="shards") as meter:
        facts = prove(reader, spec=source.spec, mend=source.mend)
        meter.advance(facts.shards)
    listing, root = source.listing, f"{WEIGHTS}/{source.spec.name}"
    members = (
        Member(f"{root}/{file.path}", "file", file.size, sha256=sha256, source=bytes_of)
        for file in listing.files
        for bytes_of, sha256 in [sources[file.path]]
    )
    entry = manifests.Model(
        spec=source.spec,
        path=root,
        origin=source.origin,
        revision=listing.revision,
        facts=facts,
        license_files=tuple(f"{root}/{file.path}" for file in listing.files if _is_license(file.path)),
    )
    return CarriedModel(entry, tuple(members))


def estimate(source: ModelSource) -> ModelFacts:
    """Return what a listing alone tells of a model, for a plan before anything is fetched."""
    listing = source.listing
    sizes = listing.sizes()
    return ModelFacts(weight_bytes=sum(sizes[path] for path in listing.loaded), shards=len(listing.loaded))


def _is_license(path: str) -> bool:
    return "/" not in path and any(fnmatch.fnmatchcase(path.lower(), pattern) for pattern in LICENSES)
