"""What a bundle needs: every artifact, what is here already, space, time, and what the target must have."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bundler.artifact import ArtifactKind
from bundler.collect.fetch import rate
from bundler.collect.sizes import ask_sizes, known_sizes
from bundler.host.drivers import branches
from bundler.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from bundler.artifact import Artifact
    from bundler.collect.session import Session
    from bundler.store import Store
    from bundler.workspace import EnvironmentLock

LEAST_PACKED = 75
"""Percent of its size that a bundle takes at least: BF16 weights pack to 78, FP8 to 81, packages to 100."""


@dataclass(frozen=True)
class ModelListing:
    """What a plan needs to know of a model; whoever asks the hub or the folder fills it in."""

    name: str
    origin: str
    """``modelscope:OWNER/NAME``, ``huggingface:OWNER/NAME`` or ``folder``."""
    files: int
    size: int
    """Bytes."""
    present: int
    """Bytes that are here already."""
    place: Path
    """Where the rest would be downloaded to."""
    revision: str | None = None
    streamed: bool = False
    """Whether the rest goes straight into the bundle, and takes no room at ``place``."""
    advice: Sequence[str] = ()
    """What the target must have, the most important line first."""


class PlannedArtifact(msgspec.Struct, frozen=True, kw_only=True):
    """One file of an environment."""

    kind: ArtifactKind
    name: str
    version: str
    url: str
    sha256: str | None
    size: int | None
    """Bytes; ``None`` where neither the lock nor the host says."""
    present: bool
    """Whether it is in the store, whole."""


class PlannedEnvironment(Stack, frozen=True, kw_only=True):
    """One environment of the bundle, its stack among its own fields."""

    name: str
    aliases: tuple[str, ...]
    platform: str
    artifacts: tuple[PlannedArtifact, ...]

    def count(self, kind: ArtifactKind) -> int:
        """Return how many artifacts are of a kind."""
        return sum(artifact.kind == kind for artifact in self.artifacts)


class PlannedModel(msgspec.Struct, frozen=True, kw_only=True):
    """One model of the bundle."""

    name: str
    origin: str
    revision: str | None
    files: int
    size: int
    missing: int
    """Bytes to download."""
    streamed: bool = False
    """Whether they go straight into the bundle."""


class Space(msgspec.Struct, frozen=True, kw_only=True):
    """What one file system is asked for."""

    path: str
    """A folder on it."""
    purposes: tuple[str, ...]
    needed: int
    """Bytes, without the artifacts whose size nobody knows."""
    free: int

    @property
    def enough(self) -> bool:
        """Whether it fits."""
        return self.needed <= self.free


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle needs; each artifact that environments share is counted once in the totals."""

    target: tuple[str, ...]
    """What the target must have, the most important line first."""
    environments: tuple[PlannedEnvironment, ...]
    models: tuple[PlannedModel, ...]
    files: int
    size: int
    """Bytes of all files of known size."""
    missing_files: int
    missing_size: int
    unknown_sizes: int
    """Files whose size neither the lock nor the host says."""
    space: tuple[Space, ...]
    rate: float | None
    """Bytes a second of an earlier fetch here."""
    seconds: float | None
    """What the downloads take at that rate; ``None`` without one."""


def make_plan(
    environments: Sequence[EnvironmentLock],
    store: Store,
    *,
    models: Sequence[ModelListing] = (),
    output: Path | None = None,
    parity: Callable[[int], int] = lambda _: 0,
    session: Session | None = None,
) -> Plan:
    """Plan a bundle.

    :param environments: with bundler's own, as :func:`bundler.workspace.required_environments` gives them.
    :param models: as their sources list them.
    :param output: the folder that the bundle would be written to, to weigh its space too.
    :param parity: gives the bytes of parity volumes for those of the volumes that they protect.
    :param session: to ask the hosts for sizes that the lock doesn't state; ``None``: nobody is asked.
    """
    artifacts = {artifact.url: artifact for one in environments for artifact in one.artifacts}
    every = list(artifacts.values())
    sizes = ask_sizes(every, store, session) if session else known_sizes(every, store)
    missing = {artifact.url for artifact in store.missing(every)}
    planned = tuple(_environment(one, sizes, missing) for one in environments)
    listed = tuple(_model(model) for model in models)
    lacking = sum(sizes.get(url, 0) for url in missing)
    missing_size = lacking + sum(model.missing for model in listed)
    size = sum(sizes.values()) + sum(model.size for model in listed)
    speed = rate(store)
    return Plan(
        target=tuple(_target(environments, models)),
        environments=planned,
        models=listed,
        files=len(every) + sum(model.files for model in listed),
        size=size,
        missing_files=len(missing),
        missing_size=missing_size,
        unknown_sizes=len(artifacts) - len(sizes),
        space=_space(_wishes(store, lacking, models, output, size, parity)),
        rate=speed,
        seconds=missing_size / speed if speed else None,
    )


def _environment(
    environment: EnvironmentLock, sizes: Mapping[str, int], missing: set[str]
) -> PlannedEnvironment:
    return PlannedEnvironment(
        name=environment.name,
        aliases=environment.aliases,
        platform=environment.platform,
        **msgspec.structs.asdict(environment.stack),
        artifacts=tuple(_artifact(one, sizes, missing) for one in environment.artifacts),
    )


def _artifact(artifact: Artifact, sizes: Mapping[str, int], missing: set[str]) -> PlannedArtifact:
    return PlannedArtifact(
        kind=artifact.kind,
        name=artifact.name,
        version=artifact.version,
        url=artifact.url,
        sha256=artifact.sha256,
        size=sizes.get(artifact.url),
        present=artifact.url not in missing,
    )


def _model(model: ModelListing) -> PlannedModel:
    return PlannedModel(
        name=model.name,
        origin=model.origin,
        revision=model.revision,
        files=model.files,
        size=model.size,
        missing=max(0, model.size - model.present),
        streamed=model.streamed,
    )


def _target(environments: Iterable[EnvironmentLock], models: Iterable[ModelListing]) -> Iterable[str]:
    """Say what the target must have: the model's GPUs first, since nothing else is dearer to get wrong."""
    for model in models:
        yield from (f"{model.name}: {line}" for line in model.advice)
    for environment in environments:
        if environment.stack.cuda:
            yield f"{environment.name}: {_driver(environment.stack.cuda)}"
    glibc = max((one.glibc for one in environments if one.glibc), key=_version, default=None)
    if glibc:
        yield f"x86_64 Linux with glibc {glibc} or newer"


def _driver(cuda: str) -> str:
    oldest, own = branches(cuda)
    text = f"NVIDIA driver for CUDA {cuda}"
    if oldest and own and own != oldest:
        return f"{text}: {oldest} or newer, better {own} or newer"
    return f"{text}: {own or oldest} or newer" if own or oldest else text


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def _wishes(
    store: Store,
    lacking: int,
    models: Iterable[ModelListing],
    output: Path | None,
    size: int,
    parity: Callable[[int], int],
) -> Iterable[tuple[Path, str, int]]:
    yield store.root, "the store", lacking
    for model in models:
        if model.size > model.present and not model.streamed:
            yield model.place, f"the weights of {model.name}", model.size - model.present
    if output is not None:
        # What an interrupted pack has written is there already.
        least = size * LEAST_PACKED // 100
        yield output, "the bundle (at least)", max(0, least + parity(least) - _written(output))


def _written(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*") if path.is_file())


def _space(wishes: Iterable[tuple[Path, str, int]]) -> tuple[Space, ...]:
    """Add up what each file system is asked for."""
    found: dict[int, Space] = {}
    for path, purpose, needed in wishes:
        place = _existing(path)
        device = os.stat(place).st_dev  # noqa: PTH116
        before = found.get(device)
        found[device] = Space(
            path=before.path if before else str(place.absolute()),
            purposes=(*(before.purposes if before else ()), purpose),
            needed=(before.needed if before else 0) + needed,
            free=shutil.disk_usage(place).free,
        )
    return tuple(found.values())


def _existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that is there."""
    path = path.absolute()
    return next((place for place in (path, *path.parents) if place.exists()), Path("/"))
