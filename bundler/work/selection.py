"""What ``pack`` was asked to carry, opened."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from bundler.errors import UsageError
from bundler.host.facts import read_target, virtual_packages
from bundler.installation import WEIGHTS
from bundler.pixi_manifest import find_manifest
from bundler.store import Store
from bundler.workspace import OWN_ENVIRONMENT, Workspace

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bundler.collect.models.source import ModelSource
    from bundler.common.progress import Reporter
    from bundler.workspace import EnvironmentLock


DEFAULT = "default"
"""The environment that is meant where neither an environment nor a model is named, as with pixi."""


@dataclass(frozen=True)
class Selection:
    """Environments and models to carry."""

    root: Path
    """The workspace's folder."""
    workspace: Workspace | None
    """``None`` where only models are selected and the folder is no workspace."""
    fetched: tuple[EnvironmentLock, ...]
    """What is fetched: the environments to carry, and the one that bundler itself travels in."""
    environments: tuple[EnvironmentLock, ...]
    """What is carried."""
    models: tuple[ModelSource, ...]

    @property
    def weights(self) -> Path:
        """The folder of downloaded models."""
        return self.root / WEIGHTS

    @cached_property
    def store(self) -> Store:
        """The workspace's store."""
        return Store.of(self.root)

    def fetch_artifacts(self, *, jobs: int, reporter: Reporter) -> None:
        """Bring every artifact into the store.

        :raises BundlerError: as :func:`bundler.collect.fetch.fetch`.
        """
        from bundler.collect.fetch import fetch

        artifacts = [artifact for one in self.fetched for artifact in one.artifacts]
        if artifacts:
            fetch(artifacts, self.store, workspace=self.root, jobs=jobs, reporter=reporter)


def select(
    root: Path,
    names: Sequence[str],
    models: Sequence[str],
    *,
    allow_unhashed: bool = False,
    allow_pickle: bool = False,
    platform: str | None = None,
    target: Path | None = None,
) -> Selection:
    """Open what the user names.

    :param root: the workspace's folder.
    :param names: names or aliases of environments.
    :param models: names, manifests, folders or hubs' addresses.
    :param platform: the lock's platform to carry, where a GPU host fits several.
    :param target: the description of a host, whose driver decides where no platform is named.
    :raises InputError: no such thing, or it can't be carried.
    :raises UsageError: two models of one name.
    """
    fetched: tuple[EnvironmentLock, ...] = ()
    workspace = None
    if names or not models or find_manifest(root):
        workspace = open_workspace(root, names or (DEFAULT,), platform, target)
        fetched = chosen_environments(workspace, names, models, allow_unhashed=allow_unhashed)
        wanted = {workspace.environment(name).name for name in names}
    carried = tuple(one for one in fetched if one.name != OWN_ENVIRONMENT or one.name in wanted)
    sources = tuple(opened_models(models, root, allow_pickle=allow_pickle))
    called = [source.spec.name for source in sources]
    for name in called:
        if called.count(name) > 1:
            raise UsageError(f"two models are called {name}", hint="name each once")
    return Selection(root, workspace, fetched, carried, sources)


def open_workspace(
    root: Path, names: Sequence[str], platform: str | None = None, target: Path | None = None
) -> Workspace:
    """Open a workspace for a target.

    :param names: the environments that the platform is for.
    :param platform: as for :func:`select`.
    :param target: as for :func:`select`.
    :raises InputError: there is none, or it has no such platform.
    """
    offered = virtual_packages(read_target(target)) if target else None
    workspace = Workspace.load(root, {"": platform} if platform else None, offered)
    if platform:
        workspace.check_platform(names, platform)
    return workspace


def chosen_environments(
    workspace: Workspace, names: Sequence[str], models: Sequence[str], *, allow_unhashed: bool = False
) -> tuple[EnvironmentLock, ...]:
    """Return the environments that a bundle needs, bundler's own among them.

    A model alone needs none: its bundle adds it to an installation.

    :raises InputError: one isn't there, or has packages that can't be carried.
    """
    from bundler.workspace import own_workspace, required_environments

    if not names and models:
        return ()
    chosen = required_environments(workspace, names or (DEFAULT,))
    here = [one.name for one in chosen if one.name in workspace.environments]
    workspace.check_carriable(here, allow_unhashed=allow_unhashed)
    own_workspace(workspace).check_carriable([OWN_ENVIRONMENT], allow_unhashed=allow_unhashed)
    return chosen


def opened_models(words: Sequence[str], workspace: Path, *, allow_pickle: bool = False) -> list[ModelSource]:
    """Return the sources of the models that the user named; nothing is asked of a hub yet.

    :raises InputError: a word names nothing, or a manifest can't be used.
    """
    if not words:
        return []
    from bundler.collect.models.specs import open_model

    return [open_model(word, workspace=workspace, allow_pickle=allow_pickle) for word in words]
