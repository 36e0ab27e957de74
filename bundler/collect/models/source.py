"""A model's source, and what it gives to a bundle."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from bundler import manifest as manifests
from bundler.archive.member import Member
from bundler.collect.models.completeness import prove
from bundler.common.progress import SILENT
from bundler.installation import WEIGHTS
from bundler.model import ModelFacts

if TYPE_CHECKING:
    from pathlib import Path

    from bundler.archive.member import Source
    from bundler.collect.models.listing import ListedFile, Listing
    from bundler.collect.models.readers import Reader
    from bundler.common.progress import Reporter
    from bundler.model import ModelSpec

LICENSES = ("license*", "licence*", "notice*", "use_policy*", "copying*", "readme.md")
"""Licence and card, in lower case."""
JOBS = 4
"""Files fetched at once."""


class ModelSource(Protocol):
    """Where a model's files come from: a folder or a hub."""

    @property
    def spec(self) -> ModelSpec:
        """The model's manifest."""

    @property
    def origin(self) -> str:
        """``modelscope:OWNER/NAME``, ``huggingface:OWNER/NAME`` or ``folder``."""

    @property
    def allow_pickle(self) -> bool:
        """Whether a checkpoint of pickles is accepted."""

    def listing(self) -> Listing:
        """Return the wanted files; asked of the source once.

        :raises InputError: there is no such model, or no file of it is wanted.
        :raises FetchError: the hub failed, or wants a token.
        :raises DamagedError: names or links that can't be carried.
        """

    def missing(self, weights: Path) -> list[ListedFile]:
        """Return the files of which no whole copy lies below ``weights``, judged by their sizes."""

    def fetch(
        self, weights: Path, *, reporter: Reporter = SILENT, jobs: int = JOBS, rehash: bool = False
    ) -> Path:
        """Bring every file into ``weights/NAME``, checked against the publisher's hash; return the folder.

        What is there already is reused; what an earlier run left half is gone on with.

        :param rehash: read files that are there even where their size and time are those of an earlier check.
        :raises FetchError: the hub failed, after retries.
        :raises DamagedError: the hub's bytes aren't those that it promised.
        """

    def members(self, weights: Path) -> dict[str, tuple[Source, str | None]]:
        """Return, for each file, where its bytes lie after :meth:`fetch`, and its sha256 if it is known."""

    def folder_reader(self, weights: Path) -> Reader:
        """Return how the fetched files are read."""

    def stream(self) -> tuple[Reader, dict[str, tuple[Source, str | None]]]:
        """Return how the files are read, by parts and whole, without a copy on this host's disk.

        :raises InputError: this can't be done: a file without a publisher's sha256, named.
        """


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
    :raises BundlerError: as :meth:`ModelSource.fetch`, :meth:`ModelSource.stream` and
        :func:`bundler.collect.models.completeness.prove`.
    """
    if stream:
        reader, sources = source.stream()
    else:
        source.fetch(weights, reporter=reporter, jobs=jobs, rehash=rehash)
        reader, sources = source.folder_reader(weights), source.members(weights)
    with reporter.phase(f"prove {source.spec.name} whole", None, unit="shards") as meter:
        facts = prove(reader, spec=source.spec, allow_pickle=source.allow_pickle)
        meter.advance(facts.shards)
    return CarriedModel(_entry(source, facts), _members(source, sources))


def estimate(source: ModelSource) -> ModelFacts:
    """Return what a listing alone tells of a model, for a plan before anything is fetched."""
    shards = [file for file in source.listing().files if file.path.endswith(".safetensors")]
    return ModelFacts(weight_bytes=sum(file.size for file in shards), shards=len(shards))


def _entry(source: ModelSource, facts: ModelFacts) -> manifests.Model:
    listing = source.listing()
    path = f"{WEIGHTS}/{source.spec.name}"
    return manifests.Model(
        spec=source.spec,
        path=path,
        origin=source.origin,
        revision=listing.revision,
        facts=facts,
        license_files=tuple(f"{path}/{file.path}" for file in listing.files if _is_license(file.path)),
    )


def _is_license(path: str) -> bool:
    return "/" not in path and any(fnmatch.fnmatchcase(path.lower(), pattern) for pattern in LICENSES)


def _members(source: ModelSource, sources: dict[str, tuple[Source, str | None]]) -> tuple[Member, ...]:
    root = f"{WEIGHTS}/{source.spec.name}"
    return tuple(
        Member(
            path=f"{root}/{file.path}",
            kind="file",
            size=file.size,
            sha256=sources[file.path][1],
            source=sources[file.path][0],
        )
        for file in source.listing().files
    )
