"""What the store gives to a bundle: the environment's entry of the manifest, and the members of its tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bundler import manifest as manifests
from bundler.archive.member import FileSource, Member
from bundler.collect.packages import installed_size, package_facts
from bundler.errors import FetchError
from bundler.workspace import LOCK, MANIFEST, PLATFORM

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bundler.artifact import Artifact
    from bundler.common.tables import Table
    from bundler.store import Store
    from bundler.workspace import EnvironmentLock, Workspace


def environment_entry(
    environment: EnvironmentLock, store: Store, *, imports: Sequence[str] = ()
) -> manifests.Environment:
    """Return an environment's entry of the manifest, its packages in the order of their names.

    :param imports: modules that the rehearsal and ``check`` import.
    :raises FetchError: an artifact isn't in the store.
    :raises DamagedError: an artifact can't be read as a package.
    """
    known = store.table("installed")
    fresh: dict[str, list[int | str]] = {}
    packages = [_package(artifact, store, known, fresh) for artifact in environment.artifacts]
    known.update(fresh)
    stack = environment.stack
    return manifests.Environment(
        name=environment.name,
        aliases=environment.aliases,
        platform=PLATFORM,
        cuda=stack.cuda,
        python=stack.python,
        sglang=stack.sglang,
        torch=stack.torch,
        imports=tuple(imports),
        glibc=stack.glibc,
        packages=tuple(sorted(packages, key=lambda one: (one.kind, one.name, one.path))),
    )


def store_members(environments: Iterable[EnvironmentLock], store: Store) -> list[Member]:
    """Return the artifacts of all environments as members of the tree, each address once, sorted by path.

    :raises FetchError: an artifact isn't in the store.
    """
    artifacts = {artifact.url: artifact for one in environments for artifact in one.artifacts}
    members = []
    for artifact in artifacts.values():
        path = store.path(artifact.url)
        _need(artifact, store)
        members.append(
            Member(
                path=store.tree_path(artifact.url),
                kind="file",
                size=path.stat().st_size,
                sha256=artifact.sha256,
                source=FileSource(path),
            )
        )
    return sorted(members, key=lambda member: member.path)


def workspace_members(workspace: Workspace) -> list[Member]:
    """Return ``pixi.toml`` and ``pixi.lock``, unmodified, as members of the tree."""
    return [
        Member(
            path=name,
            kind="file",
            size=(workspace.root / name).stat().st_size,
            source=FileSource(workspace.root / name),
        )
        for name in sorted((LOCK, MANIFEST))
    ]


def _package(
    artifact: Artifact, store: Store, known: Table, fresh: dict[str, list[int | str]]
) -> manifests.Package:
    _need(artifact, store)
    path = store.path(artifact.url)
    row = known.get(artifact.sha256) if artifact.sha256 else None
    if isinstance(row, list) and len(row) == 2:
        installed = (int(row[0]), int(row[1]))
    else:
        installed = installed_size(path)
        if artifact.sha256:
            fresh[artifact.sha256] = [*installed]
    return package_facts(artifact, path, tree_path=store.tree_path(artifact.url), installed=installed)


def _need(artifact: Artifact, store: Store) -> None:
    if not store.has(artifact):
        raise FetchError(
            f"{artifact.label} is not in the store, or not whole",
            where=store.path(artifact.url),
            hint="bundler fetch",
        )
