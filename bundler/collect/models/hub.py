"""A model on a hub, whichever hub it is."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, ClassVar

import msgspec

from bundler.archive.member import FileSource
from bundler.collect.client import Credentials
from bundler.collect.faults import UnreachableError
from bundler.collect.models.fetch import STATE, ModelFetch, hash_cache
from bundler.collect.models.listing import ListedFile, Listing, select
from bundler.collect.models.remote import HUB_PATIENCE, LISTING_PATIENCE, Remote
from bundler.collect.models.source import JOBS
from bundler.collect.models.stream import RemoteSource, digested, range_reader
from bundler.collect.network import Network
from bundler.common.broken import BROKEN_JSON
from bundler.common.durable import write_atomically
from bundler.common.progress import SILENT
from bundler.errors import BundlerError, DamagedError, InputError

if TYPE_CHECKING:
    from pathlib import Path

    from bundler.archive.member import Source
    from bundler.collect.models.reader import Reader
    from bundler.collect.models.remote import HubClient
    from bundler.collect.transfer import Patience
    from bundler.common.progress import Reporter
    from bundler.model import HubSource, ModelSpec


class _Pin(msgspec.Struct, frozen=True, kw_only=True):
    """The commit that a model's files below ``weights`` belong to."""

    origin: str
    wanted: str | None
    """The revision as it was asked for."""
    commit: str | None


@dataclass(frozen=True)
class HubModel:
    """A model on ModelScope or Hugging Face."""

    spec: ModelSpec
    client: HubClient
    place: HubSource
    allow_pickle: bool = False
    all_files: bool = False
    patience: Patience = HUB_PATIENCE
    mend: ClassVar[str] = (
        "these are the publisher's own files, and fetching them again mends nothing: "
        "name another revision, or take the model's other hub"
    )

    @property
    def origin(self) -> str:
        """``modelscope:OWNER/NAME`` or ``huggingface:OWNER/NAME``."""
        return f"{self.client.kind}:{self.place.id}"

    @cached_property
    def listing(self) -> Listing:
        """The wanted files at the commit that the revision is now; asked once.

        :raises InputError: no file of it is wanted, or it is no model that is served.
        :raises UnknownNameError: there is no such model or revision.
        :raises FetchError: the hub failed, or wants a token.
        :raises DamagedError: names that can't be carried.
        """
        try:
            every = self.client.listing(self.place.id, self.place.revision)
        except UnreachableError as problem:
            if (other := self._other_hub()) is not None:
                problem.hint = f"the manifest names another hub too: --model {other}; {problem.hint}"
            raise
        chosen = select(
            every,
            self.spec.files,
            where=self.origin,
            read=partial(self._read, every.revision),
            allow_pickle=self.allow_pickle,
            all_files=self.all_files,
        )
        self._check_config(chosen)
        return chosen

    def _check_config(self, listing: Listing) -> None:
        """Refuse what the proof would refuse after hundreds of gigabytes."""
        if "config.json" not in listing.sizes():
            raise InputError(
                "there is no config.json among the files: SGLang can't tell what model it is",
                where=f"{self.origin}@{listing.revision}",
                hint="name the repository of the model itself, or the revision that has it",
                findings=[f"there is: {file.path}" for file in listing.files[:10]],
            )

    def with_all_files(self) -> HubModel:
        """Return the source with the weights, too, that the server doesn't load."""
        return replace(self, all_files=True)

    def _other_hub(self) -> str | None:
        """Return the words of the manifest's other hub, or ``None``."""
        sources = {"hf": self.spec.source.huggingface, "ms": self.spec.source.modelscope}
        place = sources[self.client.other]
        if place is None:
            return None
        return f"{self.client.other}:{place.id}" + (f"@{place.revision}" if place.revision else "")

    def _read(self, revision: str | None, file: ListedFile) -> bytes:
        """Return a small file's bytes, for the listing itself."""
        with closing(Network(Credentials.load(), jobs=1)) as network:
            remote = Remote(self.client, self.place.id, revision, network, LISTING_PATIENCE)
            return remote.transfer(file).read(0, file.size)

    def _remote(self, jobs: int = 16) -> Remote:
        """Return how the files are asked for; whoever asks closes its network."""
        network = Network(Credentials.load(), jobs=jobs)
        return Remote(self.client, self.place.id, self.listing.revision, network, self.patience)

    @cached_property
    def _streamed(self) -> Remote:
        """How the archive reads the files: its own end closes the connections."""
        return self._remote()

    def missing(self, weights: Path) -> list[ListedFile]:
        """Return the files that aren't below ``weights`` with their size."""
        folder = weights / self.spec.name
        return [
            file
            for file in self.listing.files
            if not (folder / file.path).is_file() or (folder / file.path).stat().st_size != file.size
        ]

    def fetch(
        self, weights: Path, *, reporter: Reporter = SILENT, jobs: int = JOBS, rehash: bool = False
    ) -> Path:
        """Bring every file into ``weights/NAME``, checked against the publisher's hash; return the folder.

        What is there already is reused; what an earlier run left half is gone on with.

        :param rehash: read files that are there even where size and time are those of an earlier check.
        :raises FetchError: the hub failed, after retries.
        :raises DamagedError: the hub's bytes aren't those that it promised.
        """
        listing = self.listing
        if listing.left_out:
            reporter.say(listing.left_out_text)
        if listing.revision is None or not re.fullmatch(r"[0-9a-f]{40}", listing.revision):
            reporter.say(
                f"{self.origin}: the hub doesn't tell which commit {listing.revision} is; "
                "the files are pinned by their hashes"
            )
        self._pin(weights, reporter)
        remote = self._remote(jobs)
        with closing(remote.network):
            run = ModelFetch(remote, self.spec.name, weights, hash_cache(weights), rehash)
            try:
                run.run(listing.files, reporter, jobs)
            except DamagedError as problem:
                raise self._changed() or problem from problem
        return run.folder

    def _changed(self) -> DamagedError | None:
        """Return what to say where the hub lists files otherwise now, or ``None``."""
        try:
            now = set(self.client.listing(self.place.id, self.listing.revision).files)
        except BundlerError:
            return None
        changed = [file for file in self.listing.files if file not in now]
        if not changed:
            return None
        sizes = {file.path: file.size for file in now}
        return DamagedError(
            f"{changed[0].path} changed on {self.client.title} after it was listed",
            where=self.origin,
            hint="run the same command again: it lists the files anew; to keep to one state, name a commit "
            "as the revision",
            findings=[
                f"{file.path} was {file.size} bytes long and is {sizes.get(file.path, 'gone')} now"
                for file in changed[:20]
            ],
        )

    def _pin(self, weights: Path, reporter: Reporter) -> None:
        """Write down the commit, and say so where it is another than that of the last fetch."""
        path = weights / STATE / f"{self.spec.name}.json"
        now = _Pin(origin=self.origin, wanted=self.place.revision, commit=self.listing.revision)
        try:
            before = msgspec.json.decode(path.read_bytes(), type=_Pin)
        except (OSError, *BROKEN_JSON):
            before = now
        if (before.origin, before.wanted) == (now.origin, now.wanted) and before.commit != now.commit:
            reporter.say(
                f"{self.origin}: {now.wanted or 'the default branch'} moved from {before.commit} to "
                f"{now.commit}; files that changed are fetched again (to keep the old state, name its "
                "commit as the revision)"
            )
        write_atomically(path, msgspec.json.encode(now) + b"\n")

    def members(self, weights: Path) -> dict[str, tuple[Source, str | None]]:
        """Return the fetched files, with the digests that they were verified by."""
        folder = weights / self.spec.name
        cache = hash_cache(weights)
        return {
            file.path: (FileSource(folder / file.path), file.sha256 or cache.known(folder / file.path))
            for file in self.listing.files
        }

    def stream(self) -> tuple[Reader, dict[str, tuple[Source, str | None]]]:
        """Return how the files are read from the hub itself.

        :raises InputError: a file without any publisher's digest.
        """
        listing = digested(self._streamed, self.listing)
        sources: dict[str, tuple[Source, str | None]] = {
            file.path: (RemoteSource(self._streamed, file), file.sha256) for file in listing.files
        }
        return range_reader(self._streamed, listing), sources
