"""The rehearsal's inner side, network cut: ``python -m bundler.install.rehearsal_child``."""

from __future__ import annotations

import signal
from pathlib import Path

import msgspec

from bundler.errors import BundlerError
from bundler.install.child import OuterSide, answer_and_exit
from bundler.install.choose import choose_installer
from bundler.install.installer import Caches, InstallerWord
from bundler.install.sanity import Imports, check_imports
from bundler.store import Store
from bundler.workspace import Workspace, prefix_of


class RehearsalTask(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be rehearsed."""

    root: str
    """The scratch folder, with pixi's manifest and pixi.lock."""
    store: str
    environments: tuple[str, ...]
    installer: InstallerWord
    platforms: dict[str, str]
    """The lock's platform of each environment, by name."""
    imports: dict[str, tuple[str, ...]]
    """What the manifest names, by environment."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """How it went."""

    installer: str = ""
    imports: tuple[str, ...] = ()
    """What was imported, in order, each once."""
    problem: str | None = None
    """What failed; ``None``: nothing did."""
    findings: tuple[str, ...] = ()
    where: str | None = None
    hint: str | None = None


def rehearse_inside(task: RehearsalTask, reporter: OuterSide) -> Answer:
    """Install the environments from the store and import what they are for.

    :raises BundlerError: as the installer and the imports do.
    """
    root, store = Path(task.root), Store(Path(task.store))
    workspace = Workspace.load(root, task.platforms)
    environments = [workspace.environment(name) for name in task.environments]
    installer = choose_installer(task.installer, caches=Caches.of_store(store.root), reporter=reporter)
    installer.install(root, environments, store, reporter)
    imported: dict[str, None] = {}
    for environment in environments:
        if environment.stack.python is None:
            continue
        imports = Imports.of(environment, task.imports.get(environment.name))
        versions = check_imports(prefix_of(root, environment.name), imports, elsewhere=True)
        names = [name for name in versions if name in imports.wanted or name in imports.if_there]
        reporter.say(f"{environment.name}: imported {', '.join(names) or 'nothing'}")
        imported |= dict.fromkeys(names)
    return Answer(installer=installer.name, imports=tuple(imported))


def answer_to(task: RehearsalTask, outer: OuterSide) -> Answer:
    """Return how the rehearsal went, well or not."""
    try:
        return rehearse_inside(task, outer)
    except BundlerError as problem:
        where = None if problem.where is None else str(problem.where)
        return Answer(problem=problem.what, findings=tuple(problem.findings), where=where, hint=problem.hint)


if __name__ == "__main__":
    # Ended from outside, it ends its installer too, as it does when it is interrupted.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    answer_and_exit(RehearsalTask, answer_to)
