"""The rehearsal: install from the store with the network cut, import, and throw the result away.

It proves on the online side what would otherwise be found out on site: that the lock, the store and the
installer together need nothing else. Beside that it fills the tools' caches under ``.pkg-cache``.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bundler.common.progress import SILENT
from bundler.errors import RehearsalError
from bundler.install.child import call
from bundler.install.namespace import NoIsolationError, find_isolation
from bundler.install.rehearsal_child import Answer, RehearsalTask
from bundler.install.rehearsal_memory import RehearsalMemory
from bundler.install.sanity import Imports
from bundler.manifest import Rehearsal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bundler.common.progress import Reporter
    from bundler.install.installer import InstallerWord
    from bundler.install.program import Ended
    from bundler.store import Store
    from bundler.workspace import EnvironmentLock, Workspace

SCRATCH = "rehearsal-"
"""How the scratch folders in ``.pkg-cache`` begin; the number of the process that made one follows."""


def rehearse(
    workspace: Workspace,
    environments: Sequence[EnvironmentLock],
    store: Store,
    *,
    imports: Mapping[str, Sequence[str]] | None = None,
    installer: InstallerWord = "auto",
    again: bool = False,
    reporter: Reporter = SILENT,
) -> Rehearsal:
    """Install environments where there is no network, and import what they are for.

    What passed before with the same lock, artifacts, installer and imports is told from memory.

    :param imports: the modules that must import, by environment; where it names none,
        :meth:`bundler.install.sanity.Imports.of` decides.
    :param installer: the one that the bundle will use; ``auto``: pixi where it is here, else native.
    :returns: what goes into the bundle's manifest: passed, or not rehearsed and why, where this host forbids
        to cut the network.
    :param again: install and import, whatever is remembered.
    :raises RehearsalError: the environment doesn't install or import.
    """
    memory = RehearsalMemory.of(workspace, environments, store, installer, imports or {})
    names = tuple(environment.name for environment in environments)
    if not again and (before := memory.recall(environments)):
        passed, when = before
        reporter.say(
            f"{', '.join(names)}: rehearsed on {when:%Y-%m-%d %H:%M} UTC "
            "with this lock, store and installer; not repeated"
        )
        return passed
    try:
        isolation = find_isolation()
    except NoIsolationError as problem:
        reporter.say(f"not rehearsed: {problem}")
        return Rehearsal(status="not rehearsed", reason="; ".join((problem.what, *problem.findings)))
    with (
        _scratch(store.root) as folder,
        reporter.phase(f"rehearse {', '.join(names)}", _size(environments, store)) as meter,
    ):
        root = _copy(workspace, folder)
        task = RehearsalTask(
            root=str(root),
            store=str(store.root.absolute()),
            environments=names,
            platforms={one.name: one.platform for one in environments},
            installer=installer,
            imports={name: tuple(modules) for name, modules in (imports or {}).items()},
        )
        module = "bundler.install.rehearsal_child"
        found, ended = call(module, task, Answer, os.environ, folder, meter, isolated=isolation.command)
    answer = found or _without_answer(ended)
    if answer.problem is not None:
        raise _failure(answer, root, workspace)
    passed = Rehearsal(
        status="passed", installer=answer.installer, isolation=isolation.name, imports=answer.imports
    )
    memory.keep(passed)
    return passed


def imports_of(environment: EnvironmentLock, rehearsal: Rehearsal) -> tuple[str, ...]:
    """Return the modules that a manifest names for an environment that serves: those that were rehearsed."""
    imports = Imports.of(environment)
    if not imports.wanted:
        return ()
    return tuple(name for name in imports.every if name in imports.wanted or name in rehearsal.imports)


def abandoned(store: Path) -> list[Path]:
    """Return the scratch folders in a store whose rehearsal has ended."""
    owners = {old: old.name.removeprefix(SCRATCH).partition("-")[0] for old in store.glob(f"{SCRATCH}*")}
    return [old for old, owner in owners.items() if not (owner.isdigit() and Path("/proc", owner).exists())]


@contextmanager
def _scratch(store: Path) -> Iterator[Path]:
    """Make a folder on the caches' file system, where an environment is hard links, and remove it.

    What killed processes left is removed first.
    """
    for old in abandoned(store):
        shutil.rmtree(old, ignore_errors=True)
    with tempfile.TemporaryDirectory(
        prefix=f"{SCRATCH}{os.getpid()}-", dir=store.absolute(), ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)


def _copy(workspace: Workspace, folder: Path) -> Path:
    """Copy the manifest and the lock, and nothing of the workspace's own configuration."""
    root = folder / "workspace"
    root.mkdir()
    for path in workspace.files:
        shutil.copyfile(path, root / path.name)
    return root


def _size(environments: Sequence[EnvironmentLock], store: Store) -> int:
    """Return the bytes of the artifacts that are there; what isn't is the installer's to complain of."""
    paths = {store.path(one.url) for environment in environments for one in environment.artifacts}
    return sum(path.stat().st_size for path in paths if path.is_file())


def _without_answer(ended: Ended) -> Answer:
    """Return the answer of an inner side that died."""
    return Answer(
        problem=f"the rehearsal ended without an answer ({ended.how})", findings=tuple(ended.said())
    )


def _failure(answer: Answer, root: Path, workspace: Workspace) -> RehearsalError:
    """Return the error as it concerns the workspace: the scratch folder is gone."""
    where = answer.where
    if where is not None and Path(where).is_relative_to(root):
        where = str(workspace.root / Path(where).relative_to(root))
    return RehearsalError(
        f"the environment doesn't install or import without a network: {answer.problem}",
        findings=answer.findings,
        where=where,
        hint=answer.hint,
    )
