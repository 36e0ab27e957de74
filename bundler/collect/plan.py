"""What a bundle needs: every artifact, what is here already, space, time, and what the target must have."""

from __future__ import annotations

import os
import shutil
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
    from bundler.collect.network import Network
    from bundler.store import Store
    from bundler.workspace import EnvironmentLock

LEAST_PACKED = 75
"""Percent of their size that weights take in a bundle at least: BF16 packs to 78, FP8 to 81. Packages are
packed already: 100."""
UNPACKED = (1.5, 2.5)
"""How many times its size a package takes once installed, at least and at most, where that isn't known yet:
the wheels of a serving environment take 2.0."""


class PlannedArtifact(msgspec.Struct, frozen=True, kw_only=True):
    """One file of an environment."""

    kind: ArtifactKind
    name: str
    version: str
    url: str
    sha256: str | None
    md5: str | None = None
    """Where the lock fixes it by that alone."""
    size: int | None
    """Bytes; ``None`` where neither the lock nor the host says."""
    present: bool
    """Whether it is in the store, whole."""


class PlannedEnvironment(Stack, frozen=True, kw_only=True):
    """One environment of the bundle, its stack among its own fields."""

    name: str
    aliases: tuple[str, ...]
    platform: str
    """The platform's name in the lock."""
    other_platforms: tuple[str, ...] = ()
    """The lock's further platforms that a GPU host fits."""
    declared_platforms: dict[str, str] = msgspec.field(default_factory=dict)
    """What the manifest calls these platforms, by their names in the lock."""
    artifacts: tuple[PlannedArtifact, ...]

    @property
    def all_platforms(self) -> tuple[str, ...]:
        """The platform that is carried, and the further ones."""
        return (self.platform, *self.other_platforms)

    def count(self, kind: ArtifactKind) -> int:
        """Return how many artifacts are of a kind."""
        return sum(artifact.kind == kind for artifact in self.artifacts)


class PlannedModel(msgspec.Struct, frozen=True, kw_only=True):
    """One model of the bundle."""

    name: str
    origin: str
    """``modelscope:OWNER/NAME``, ``huggingface:OWNER/NAME`` or ``folder``."""
    revision: str | None
    files: int
    size: int
    """Bytes."""
    missing: int
    """Bytes to download."""
    streamed: bool = False
    """Whether they go straight into the bundle, and take no room of their own."""
    left_out: str = ""
    """What of it isn't carried, as the server doesn't load it, with the bytes; empty: nothing."""


class ModelListing(PlannedModel, frozen=True, kw_only=True):
    """A model with what a plan needs to know beside; whoever asks the hub or the folder fills it in."""

    place: Path
    """Where the rest would be downloaded to."""
    advice: tuple[str, ...] = ()
    """What the target must have, the most important line first."""


class Space(msgspec.Struct, frozen=True, kw_only=True):
    """What one file system is asked for."""

    path: str
    """A folder on it."""
    purposes: tuple[str, ...]
    needed: int
    """Bytes at its peak, at least; without the artifacts whose size nobody knows."""
    free: int
    most: int = 0
    """Bytes at its peak, at most."""

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
    bundle: tuple[int, int]
    """Bytes of the bundle, at least and at most."""
    installed: tuple[int, int]
    """Bytes that the target needs, at least and at most: payload, environments and runtime."""
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
    rehearsed: bool = True,
    network: Network | None = None,
) -> Plan:
    """Plan a bundle.

    :param environments: with bundler's own, as :func:`bundler.workspace.required_environments` gives them.
    :param models: as their sources list them.
    :param output: the folder that the bundle would be written to, to weigh its space too.
    :param parity: gives the bytes of parity volumes for those of the volumes that they protect.
    :param rehearsed: whether a rehearsal will leave unpacked packages in the store's caches.
    :param network: to ask the hosts for sizes that the lock doesn't state; ``None``: nobody is asked.
    """
    artifacts = {artifact.url: artifact for one in environments for artifact in one.artifacts}
    every = list(artifacts.values())
    sizes = ask_sizes(every, store, network) if network else known_sizes(every, store)
    missing = {artifact.url for artifact in store.missing(every)}
    planned = tuple(_environment(one, sizes, missing) for one in environments)
    lacking = sum(sizes.get(url, 0) for url in missing)
    missing_size = lacking + sum(model.missing for model in models)
    packages, weights = sum(sizes.values()), sum(model.size for model in models)
    size = packages + weights
    bundle = _with(parity, packages + weights * LEAST_PACKED // 100, size)
    unpacked = _unpacked(every, sizes, store)
    copies = _less(unpacked, _taken(store)) if rehearsed else (0, 0)
    speed = rate(store)
    return Plan(
        target=tuple(_target(environments, models)),
        environments=planned,
        models=tuple(msgspec.convert(one, PlannedModel, from_attributes=True) for one in models),
        files=len(every) + sum(model.files for model in models),
        size=size,
        missing_files=len(missing),
        missing_size=missing_size,
        unknown_sizes=len(artifacts) - len(sizes),
        space=_space(_wishes(store, lacking, copies, models, output, bundle)),
        bundle=bundle,
        installed=(size + unpacked[0], size + unpacked[1]),
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
        other_platforms=environment.other_platforms,
        declared_platforms={one.name: one.declared for one in environment.candidates},
        **msgspec.structs.asdict(environment.stack),
        artifacts=tuple(
            PlannedArtifact(
                kind=artifact.kind,
                name=artifact.name,
                version=artifact.version,
                url=artifact.url,
                sha256=artifact.sha256,
                md5=artifact.md5,
                size=sizes.get(artifact.url),
                present=artifact.url not in missing,
            )
            for artifact in environment.artifacts
        ),
    )


def _target(environments: Iterable[EnvironmentLock], models: Iterable[ModelListing]) -> Iterable[str]:
    """Say what the target must have: the model's GPUs first, since nothing else is dearer to get wrong."""
    for model in models:
        yield from (f"{model.name}: {line}" for line in model.advice)
    for environment in environments:
        if environment.stack.cuda:
            yield f"{environment.name}: {_driver(environment.stack.cuda)}"
    glibc = max(
        (one.glibc for one in environments if one.glibc),
        key=lambda text: [int(part) for part in text.split(".")],
        default=None,
    )
    if glibc:
        yield f"x86_64 Linux with glibc {glibc} or newer"


def _driver(cuda: str) -> str:
    oldest, own = branches(cuda)
    text = f"NVIDIA driver for CUDA {cuda}"
    if oldest and own and own != oldest:
        return f"{text}: {oldest} or newer, better {own} or newer"
    return f"{text}: {own or oldest} or newer" if own or oldest else text


def _with(parity: Callable[[int], int], least: int, most: int) -> tuple[int, int]:
    return least + parity(least), most + parity(most)


def _less(wanted: tuple[int, int], there: int) -> tuple[int, int]:
    return max(0, wanted[0] - there), max(0, wanted[1] - there)


def _unpacked(artifacts: Iterable[Artifact], sizes: Mapping[str, int], store: Store) -> tuple[int, int]:
    """Return the bytes that packages take once installed, at least and at most."""
    known = store.table("installed")
    least = most = 0.0
    for artifact in artifacts:
        sha256 = store.sha256(artifact)
        row = known.get(sha256) if sha256 else None
        if isinstance(row, list) and row and isinstance(row[0], int):
            least, most = least + row[0], most + row[0]
        else:
            size = sizes.get(artifact.url, 0)
            least, most = least + size * UNPACKED[0], most + size * UNPACKED[1]
    return int(least), int(most)


def _taken(store: Store) -> int:
    """Return the bytes that the store's caches hold unpacked already."""
    seen = {}
    for folder in ("conda", "pypi", "pixi"):
        for path, _, names in os.walk(store.root / folder):
            for name in names:
                status = os.lstat(f"{path}/{name}")
                seen[status.st_ino] = status.st_size
    return sum(seen.values())


def _wishes(
    store: Store,
    lacking: int,
    copies: tuple[int, int],
    models: Iterable[ModelListing],
    output: Path | None,
    bundle: tuple[int, int],
) -> Iterable[tuple[Path, str, tuple[int, int]]]:
    yield store.root, "the store", (lacking, lacking)
    if copies[1]:
        yield store.root, "the rehearsal's and the runtime's copies", copies
    for model in models:
        if model.missing and not model.streamed:
            yield model.place, f"the weights of {model.name}", (model.missing, model.missing)
    if output is not None:
        # What an interrupted pack has written is there already.
        written = sum(path.stat().st_size for path in output.glob("*") if path.is_file())
        yield output, "the bundle", _less(bundle, written)


def _space(wishes: Iterable[tuple[Path, str, tuple[int, int]]]) -> tuple[Space, ...]:
    """Add up what each file system is asked for."""
    found: dict[int, Space] = {}
    for path, purpose, (least, most) in wishes:
        place = _existing(path)
        device = os.stat(place).st_dev  # noqa: PTH116
        before = found.get(device)
        found[device] = Space(
            path=before.path if before else str(place.absolute()),
            purposes=(*(before.purposes if before else ()), purpose),
            needed=(before.needed if before else 0) + least,
            most=(before.most if before else 0) + most,
            free=shutil.disk_usage(place).free,
        )
    return tuple(found.values())


def _existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that is there."""
    path = path.absolute()
    return next((place for place in (path, *path.parents) if place.exists()), Path("/"))
