"""The store filled: what is missing or damaged of the lock's artifacts, downloaded in parallel."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from bundler.collect.download import Wanted, check_room, receive
from bundler.collect.faults import Stopped, UnreachableError
from bundler.collect.network import JOBS, Network, Origin, open_network
from bundler.collect.ranges import connections_each
from bundler.collect.sizes import ask_sizes
from bundler.collect.transfer import PATIENT
from bundler.common.disk_trouble import advice
from bundler.common.durable import locked, make_folder
from bundler.common.progress import SILENT
from bundler.common.secrets import masked
from bundler.common.threads import each
from bundler.common.units import size_text
from bundler.errors import BundlerError, DamagedError, DestinationError, FetchError, PreflightError
from bundler.store import FETCH_LOCK

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from bundler.artifact import Artifact
    from bundler.collect.transfer import Patience
    from bundler.common.progress import Reporter
    from bundler.store import Store

HOPELESS = 3
"""Files that failed for want of their host before the fetch is given up: each took its retries."""
WORTH_MEASURING = 8 << 20
"""Bytes from which a fetch's rate says something of the network."""


@dataclass(frozen=True)
class Fetched:
    """What a fetch did."""

    files: int
    """Downloaded now."""
    present: int
    """There before, and whole."""
    size: int
    """Bytes of the files downloaded now."""
    seconds: float


def fetch(
    artifacts: Iterable[Artifact],
    store: Store,
    *,
    workspace: Path | None = None,
    reporter: Reporter = SILENT,
    jobs: int = JOBS,
    deep: bool = False,
    patience: Patience = PATIENT,
) -> Fetched:
    """Bring every artifact into the store, whole.

    Interrupted, by the user or by a failure, it leaves what came; the same call goes on there.

    :param artifacts: of one or several environments; one address counts once.
    :param workspace: the folder whose ``.pixi/config.toml`` may name mirrors.
    :param deep: hash every file that is there again.
    :raises FetchError: some couldn't be had; each is named.
    :raises DamagedError: some came with other bytes than the lock promises, twice.
    :raises PreflightError: too little disk space.
    :raises InputError: a configuration can't be used.
    """
    wanted = list({artifact.url: artifact for artifact in artifacts}.values())
    with _lock(store, reporter):
        missing = store.missing(wanted, deep=deep, reporter=reporter)
        if not missing:
            return Fetched(0, len(wanted), 0, 0.0)
        with closing(open_network(workspace, jobs=jobs)) as network:
            fetching = _Fetching(store, network, missing, patience)
            fetching.check_space()
            start = time.monotonic()
            fetching.run(reporter, jobs)
        seconds = time.monotonic() - start
        if fetching.received >= WORTH_MEASURING and seconds > 0:
            store.table("rates").update({"download": round(fetching.received / seconds)})
        size = sum(store.path(artifact.url).stat().st_size for artifact in missing)
        return Fetched(len(missing), len(wanted) - len(missing), size, seconds)


def rate(store: Store) -> float | None:
    """Return the bytes a second of the latest fetch worth measuring, or ``None``."""
    value = store.table("rates").get("download")
    return float(value) if isinstance(value, int | float) and value > 0 else None


class _Fetching:
    """One run over what is missing."""

    def __init__(
        self, store: Store, network: Network, missing: Sequence[Artifact], patience: Patience
    ) -> None:
        self._store, self._network, self._patience = store, network, patience
        # The lock's sizes bind; a host's answer is for the bar and the disk only.
        self._sizes = ask_sizes(missing, store, network)
        # Largest first, so that no large file is left alone at the end.
        order = sorted(missing, key=lambda artifact: -self._sizes.get(artifact.url, 0))
        addresses = network.configuration.candidates
        self._wanted = {
            one: Wanted(store.path(one.url), addresses(one.url), one.sha256, one.size, md5=one.md5)
            for one in order
        }
        self.received = 0

    def check_space(self) -> None:
        """Refuse what won't fit, before anything is written."""
        make_folder(self._store.root)
        needed = sum(
            max(0, self._sizes.get(artifact.url, 0) - wanted.partial_size())
            for artifact, wanted in self._wanted.items()
        )
        hint = "make room, or make .pkg-cache a link to a larger disk"
        check_room(self._store.root, needed, "the store", hint)

    def run(self, reporter: Reporter, jobs: int) -> None:
        """Download everything; one that fails alone doesn't keep the others from coming."""
        before = sum(wanted.partial_size() for wanted in self._wanted.values())
        whole = all(artifact.url in self._sizes for artifact in self._wanted)
        total = sum(self._sizes.get(artifact.url, 0) for artifact in self._wanted) if whole else None
        failed: dict[Artifact, BundlerError] = {}
        done: dict[Artifact, str] = {}
        if before:
            of = f" of {size_text(total)}" if total else ""
            reporter.say(f"going on: {size_text(before)}{of} came in an earlier run")
        left = (self._sizes.get(one.url, 0) - wanted.partial_size() for one, wanted in self._wanted.items())
        self._connections = connections_each(left, jobs)
        with reporter.phase("fetch", total, done=before) as meter:
            self._meter = meter
            try:
                for artifact, outcome in each(
                    self._one, self._wanted, threads=jobs, on_stop=self._network.interrupt
                ):
                    if isinstance(outcome, str):
                        done[artifact] = outcome
                    else:
                        failed[artifact] = problem = outcome
                        meter.say(masked(f"{artifact.label}: {problem.what}"))
                        # Hosts that failed so often, after all retries, would fail the rest too.
                        if sum(isinstance(one, UnreachableError) for one in failed.values()) >= HOPELESS:
                            break
            finally:
                self._store.record(done)
        if failed:
            raise _all_failures(failed)

    def _one(self, artifact: Artifact, stop: threading.Event) -> tuple[Artifact, str | BundlerError]:
        """Bring one artifact; return its sha256, or why it couldn't be had."""
        wanted = self._wanted[artifact]
        try:
            sha256 = receive(
                wanted,
                [Origin(self._network, url) for url in wanted.urls],
                self._advance,
                stop=self._network.stop,
                counted=wanted.partial_size(),
                connections=self._connections,
                patience=self._patience,
            )
        except PreflightError:
            raise
        except BundlerError as problem:
            return artifact, problem
        except Stopped as problem:
            return artifact, FetchError(f"interrupted: {problem}")
        return artifact, sha256

    def _advance(self, amount: int) -> None:
        self.received += amount
        self._meter.advance(amount)


def _all_failures(failed: dict[Artifact, BundlerError]) -> BundlerError:
    """Return one error for all: that of the worst kind, naming each artifact."""
    problems = list(failed.values())
    if len(problems) == 1:
        return problems[0]
    damaged = [problem for problem in problems if isinstance(problem, DamagedError)]
    findings = [
        f"{artifact.label}: {problem.what} ({problem.where or artifact.url})"
        for artifact, problem in failed.items()
    ]
    kind = DamagedError if damaged else FetchError
    hint = (damaged or problems)[0].hint
    return kind(f"{len(failed)} files couldn't be had; what came is kept", findings=findings, hint=hint)


def _lock(store: Store, reporter: Reporter) -> AbstractContextManager[None]:
    """Return what keeps a second fetch of the store waiting: two would write the same partial files."""
    place = store.memory / FETCH_LOCK
    try:
        make_folder(store.memory)
        place.touch()
    except OSError as problem:
        what = f"the store can't be written: {problem.strerror}"
        hint = advice(problem) or "check its permissions"
        raise DestinationError(what, where=store.root, hint=hint) from problem
    return locked(place, partial(reporter.say, "another bundler fills this store; waiting for it"))
