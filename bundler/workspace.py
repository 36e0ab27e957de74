"""The workspace: the folder with pixi's manifest and pixi.lock, as environments and artifacts."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bundler.errors import InputError, UnknownNameError
from bundler.lockfile import (
    LockDocument,
    LockEnvironment,
    LockPackage,
    Refusal,
    artifact_or_refusal,
    glibc_of_depends,
    glibc_of_wheel,
    read_lock,
)
from bundler.pixi_manifest import (
    PIXI,
    PYPROJECT,
    aliases_of,
    features_of,
    find_manifest,
    read_manifest,
    required_cuda,
)
from bundler.platforms import PLATFORM, choose_platform, cuda_of, usable_platforms
from bundler.stack import CUDNN, Stack, cuda_built_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bundler.artifact import Artifact
    from bundler.platforms import Candidate

OWN_ENVIRONMENT = "bundler"
"""The environment that bundler itself travels in."""
_SHIPPED = "_workspace"
"""The package's folder that a wheel of bundler brings its own pixi.toml and pixi.lock in."""
PACKED = "bundles"
"""The folder of a workspace that ``pack`` writes bundles to."""
LOCK = "pixi.lock"
WHOLE = "the environment"
"""What a refusal names where it isn't about a package."""


@dataclass(frozen=True)
class EnvironmentLock:
    """One environment of the lock, for the bundle's platform."""

    name: str
    """As the manifest spells it."""
    aliases: tuple[str, ...]
    """Features that belong to this environment only: ``cu126`` of ``default``."""
    platform: str
    """The platform's name in the lock; version 7 may call it something else than its subdir."""
    artifacts: tuple[Artifact, ...]
    """What an installer needs, conda packages first, in the lock's order."""
    refusals: tuple[Refusal, ...] = ()
    """What can't be carried."""
    channels: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()
    """The package indexes the environment's wheels were looked up in."""
    virtual_packages: tuple[str, ...] = ()
    """What the platform was locked for (``__glibc=2.28``)."""
    candidates: tuple[Candidate, ...] = ()
    """The lock's platforms that a GPU host fits, in the order in which pixi takes them."""
    least_cuda: str | None = None
    """The newest CUDA that its records (``__cuda >=12``), its platform or its manifest ask of the driver."""
    glibc: str | None = None
    """The newest glibc that its wheels' tags or conda records ask for."""

    @property
    def other_platforms(self) -> tuple[str, ...]:
        """The lock's further platforms that a GPU host fits, in the order in which pixi takes them."""
        return tuple(one.name for one in self.candidates if one.name != self.platform)

    def version_of(self, name: str) -> str | None:
        """Return a package's locked version."""
        return next((one.version for one in self.artifacts if normalised(one.name) == normalised(name)), None)

    @cached_property
    def stack(self) -> Stack:
        """The versions that decide where it runs."""
        torch = self.version_of("torch") or self.version_of("pytorch")
        return Stack(
            cuda=cuda_built_for(self.artifacts) or self.least_cuda,
            python=self.version_of("python"),
            torch=torch,
            sglang=self.version_of("sglang"),
            glibc=self.glibc,
            cudnn=self.version_of(CUDNN),
        )


@dataclass(frozen=True, eq=False)
class Workspace:
    """A folder with pixi's manifest and lock. The lock's packages are read when they are asked for."""

    root: Path
    manifest_path: Path
    """``pixi.toml``, or what pixi takes in its place."""
    manifest: Mapping[str, Any]
    """pixi's tables of it, as they stand."""
    lock: LockDocument
    platforms: Mapping[str, str] = field(default_factory=dict)
    """The platform to take of several that a host fits, by environment; ``""``: of every other one."""
    offered: Mapping[str, str] = field(default_factory=dict)
    """What is known of the target, as :meth:`bundler.platforms.Candidate.fits` wants it."""

    @classmethod
    def load(
        cls,
        root: Path,
        platforms: Mapping[str, str] | None = None,
        offered: Mapping[str, str] | None = None,
    ) -> Workspace:
        """Read a workspace.

        :param root: the folder.
        :param platforms: which platform to take, as :attr:`platforms`; else the first that pixi takes on the
            target.
        :param offered: what is known of the target, as :attr:`offered`; a GPU host where nothing is.
        :raises InputError: a file isn't there, can't be read, or is of a version that is not understood.
        """
        path = find_manifest(root)
        if path is None or not (root / LOCK).is_file():
            raise _absent(root, path)
        return cls(root, path, read_manifest(path), read_lock(root / LOCK), platforms or {}, offered or {})

    @property
    def lock_path(self) -> Path:
        """Where pixi.lock is."""
        return self.root / LOCK

    @property
    def files(self) -> tuple[Path, ...]:
        """What makes it a workspace: all that an installer reads of it."""
        return (self.manifest_path, self.lock_path)

    @cached_property
    def environments(self) -> Mapping[str, EnvironmentLock]:
        """The lock's environments by name, in the manifest's order."""
        aliases = aliases_of(self.manifest)
        packages = self.lock.by_location()
        declared = [name for name in aliases if name in self.lock.environments]
        return {
            name: self._environment(name, self.lock.environments[name], aliases.get(name, ()), packages)
            for name in dict.fromkeys([*declared, *self.lock.environments])
        }

    def environment(self, name: str) -> EnvironmentLock:
        """Return the environment of a name or alias.

        :raises UnknownNameError: there is none; the message lists those that exist.
        """
        if name in self.environments:
            return self.environments[name]
        for environment in self.environments.values():
            if name in environment.aliases:
                return environment
        if name in features_of(self.manifest):
            raise UnknownNameError(
                f"the environment {name!r} is in {self.manifest_path.name} and not in pixi.lock",
                where=self.lock_path,
                hint="bring the lock up to date: pixi lock",
            )
        have = ", ".join(
            f"{one.name} ({', '.join(one.aliases)})" if one.aliases else one.name
            for one in self.environments.values()
        )
        raise UnknownNameError(
            f"no environment {name!r}; there are: {have or 'none'}",
            where=self.lock_path,
            hint="name one of them with --env",
        )

    def check_platform(self, names: Iterable[str], platform: str) -> None:
        """Refuse a platform that one of the environments isn't locked for, or that no GPU host fits.

        :raises UnknownNameError: naming those that there are.
        """
        for one in map(self.environment, names):
            if not any(platform in (other.name, other.declared) for other in one.candidates):
                raise UnknownNameError(
                    f"the environment {one.name} has no platform {platform!r} that a GPU host fits; "
                    f"there are: {', '.join(other.words for other in one.candidates) or 'none'}",
                    where=self.lock_path,
                    hint="name one of them with --platform",
                )

    def check_carriable(self, names: Iterable[str], *, allow_unhashed: bool = False) -> None:
        """Refuse environments that can't be carried, naming every package at once.

        :param names: environments, by name or alias.
        :param allow_unhashed: carry packages whose content the lock doesn't fix.
        :raises InputError: with a finding for each package.
        """
        refused = [
            (environment, refusal)
            for environment in map(self.environment, names)
            for refusal in environment.refusals
            if not (allow_unhashed and refusal.kind == "hash")
        ]
        if refused:
            whole = all(one.package == WHOLE for _, one in refused)
            noun = "environment" if whole else "locked package"
            empty = all(one.kind == "empty" for _, one in refused)
            lock_again = f"mend them in {self.manifest_path.name} and lock again: pixi lock"
            raise InputError(
                f"{len(refused)} {noun}{'s' if len(refused) > 1 else ''} can't be carried",
                where=self.lock_path,
                findings=[f"{environment.name}: {refusal}" for environment, refusal in refused],
                hint="name another with --env" if empty else lock_again,
            )

    def _emptiness(self, locked: LockEnvironment) -> Refusal:
        """Say why an environment has nothing for a GPU host."""
        if PLATFORM not in locked.packages and any(locked.packages.values()):
            reason = f"is locked for {', '.join(locked.packages)}, not for {PLATFORM}"
            fix = f"add {PLATFORM} to the platforms in {self.manifest_path.name} and lock again"
            return Refusal("platform", WHOLE, reason, fix)
        filled = [one for one, other in self.lock.environments.items() if any(other.packages.values())]
        reason = f"has no packages; there are: {', '.join(filled) or 'none'}"
        return Refusal("empty", WHOLE, reason, "name another with --env")

    def _environment(
        self,
        name: str,
        locked: LockEnvironment,
        aliases: tuple[str, ...],
        packages: Mapping[str, list[LockPackage]],
    ) -> EnvironmentLock:
        wanted = self.platforms.get(name) or self.platforms.get("")
        candidates = usable_platforms(self.lock, locked, self.manifest)
        platform = choose_platform(candidates, wanted, self.offered)
        bare = EnvironmentLock(
            name=name,
            aliases=aliases,
            platform=platform.name if platform else PLATFORM,
            artifacts=(),
            channels=tuple(channel.url for channel in locked.channels),
            indexes=locked.indexes,
            candidates=candidates,
        )
        if platform is None or not locked.packages[platform.name]:
            return replace(bare, refusals=(self._emptiness(locked),))
        chosen = [self._resolve(selector, packages) for selector in locked.packages[platform.name]]
        carried = [artifact_or_refusal(package, PLATFORM) for package in chosen]
        artifacts = [artifact for artifact, _ in carried if artifact]
        return replace(
            bare,
            artifacts=tuple(sorted(artifacts, key=lambda one: one.kind)),
            refusals=(*(refusal for _, refusal in carried if refusal), *_clashes(artifacts)),
            virtual_packages=platform.virtual_packages,
            least_cuda=_least_cuda(
                chosen, cuda_of(platform.virtual_packages), required_cuda(self.manifest, name)
            ),
            glibc=_newest_glibc(chosen),
        )

    def _resolve(self, selector: LockPackage, packages: Mapping[str, list[LockPackage]]) -> LockPackage:
        for package in packages.get(selector.location, ()):
            if package.is_named_by(selector):
                return package
        if selector.conda_source is not None:
            return selector
        raise InputError(
            f"pixi.lock names {selector.location} and doesn't describe it",
            where=self.lock_path,
            hint="write it again: pixi lock",
        )


def required_environments(workspace: Workspace, names: Iterable[str]) -> tuple[EnvironmentLock, ...]:
    """Return the environments of a bundle: those named, once each, and the one that bundler travels in.

    :raises UnknownNameError: as :meth:`Workspace.environment`.
    """
    chosen = {environment.name: environment for environment in map(workspace.environment, names)}
    chosen.setdefault(OWN_ENVIRONMENT, own_workspace(workspace).environments[OWN_ENVIRONMENT])
    return tuple(chosen.values())


def own_workspace(workspace: Workspace) -> Workspace:
    """Return the workspace whose environment ``bundler`` travels: this one, or else bundler's own.

    bundler's own lock comes with it, in the package or in the checkout that it runs from, so that what runs
    on the GPU host is hashed by its publishers whatever is installed here.

    :raises InputError: the lock that came with bundler is gone, or can't be read.
    """
    if OWN_ENVIRONMENT in workspace.environments:
        return workspace
    package = Path(__file__).resolve().parent
    return Workspace.load(package / _SHIPPED if (package / _SHIPPED).is_dir() else package.parent)


def normalised(name: str) -> str:
    """Return a package's name as PEP 503 compares it: ``torch_memory_saver`` is ``torch-memory-saver``."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _clashes(artifacts: Iterable[Artifact]) -> list[Refusal]:
    """Refuse two artifacts of one address with different contents: they can't share a place in the store."""
    seen: dict[str, Artifact] = {}
    found = []
    for artifact in artifacts:
        place = artifact.url.partition("#")[0].partition("?")[0]
        if seen.setdefault(place, artifact).sha256 != artifact.sha256:
            found.append(
                Refusal(
                    "address",
                    artifact.label,
                    f"shares its address with another content ({place})",
                    "lock a version of its own address",
                )
            )
    return found


def _least_cuda(packages: Iterable[LockPackage], *stated: str | None) -> str | None:
    asked = (re.match(r"__cuda\s*>=\s*(\d+(?:\.\d+)?)", line) for one in packages for line in one.depends)
    versions = [*(match[1] for match in asked if match), *(version for version in stated if version)]
    return max(versions, key=lambda text: [int(part) for part in re.findall(r"\d+", text)], default=None)


def _newest_glibc(packages: Iterable[LockPackage]) -> str | None:
    found = [
        glibc_of_depends(package.depends) if package.conda else glibc_of_wheel(package.location)
        for package in packages
    ]
    newest = max((version for version in found if version), default=None)
    return f"{newest[0]}.{newest[1]}" if newest else None


def _absent(root: Path, manifest: Path | None) -> InputError:
    if not root.is_dir():
        return InputError("no such folder", where=root.absolute(), hint="name the workspace with -C")
    if manifest is not None:
        return InputError(
            f"{manifest.name} is here, pixi.lock is not", where=root.absolute(), hint="lock it: pixi lock"
        )
    other = f", and its {PYPROJECT} has no [tool.pixi]" if (root / PYPROJECT).is_file() else ""
    return InputError(
        f"this is not a workspace: it has no {PIXI}{other}",
        where=root.absolute(),
        hint=f"run bundler where pixi's manifest ({PIXI} or {PYPROJECT}) and pixi.lock are, "
        "or name that folder with -C",
    )


def prefix_of(root: Path, environment: str) -> Path:
    """Return where pixi puts an environment of a workspace or an installation."""
    return root / ".pixi" / "envs" / environment
