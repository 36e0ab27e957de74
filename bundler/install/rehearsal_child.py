"""The rehearsal's inner side, network cut: ``python -m bundler.install.rehearsal_child TASK ANSWER``.

Installs and imports, prints what happens, and leaves its answer in a file. Lines that begin with
:data:`ADVANCE` are not for people: they count the progress for the outer side's bar.
"""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bundler.errors import BundlerError
from bundler.install.choose import choose_installer
from bundler.install.installer import Caches, InstallerWord
from bundler.install.sanity import Imports, check_imports
from bundler.store import Store
from bundler.workspace import Workspace, prefix_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bundler.common.progress import Meter

ADVANCE = "\x1e"
"""ASCII's record separator."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be rehearsed."""

    root: str
    """The scratch folder, with pixi.toml and pixi.lock."""
    store: str
    environments: tuple[str, ...]
    installer: InstallerWord
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


_GUARD = threading.Lock()


def _show(line: str) -> None:
    """Print a whole line at once: the mirror's threads count while the installer speaks."""
    with _GUARD:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


class LineMeter:
    """Counts and speaks by printing."""

    def advance(self, amount: int) -> None:
        """Print a count for the outer side."""
        _show(f"{ADVANCE}{amount}")

    def say(self, line: str) -> None:
        """Print a line."""
        _show(line)


class LineReporter:
    """Opens meters that print."""

    @contextmanager
    def phase(
        self, name: str, total: int | None = None, *, unit: str = "B", done: int = 0
    ) -> Iterator[Meter]:
        """Print the phase's name."""
        _show(name)
        yield LineMeter()

    def say(self, line: str) -> None:
        """Print a line."""
        _show(line)


def rehearse_inside(task: Task) -> Answer:
    """Install the environments from the store and import what they are for.

    :raises BundlerError: as the installer and the imports do.
    """
    root, store, reporter = Path(task.root), Store(Path(task.store)), LineReporter()
    workspace = Workspace.load(root)
    environments = [workspace.environment(name) for name in task.environments]
    installer = choose_installer(task.installer, caches=Caches.of_store(store.root), reporter=reporter)
    installer.install(root, environments, store, reporter)
    imported: dict[str, None] = {}
    for environment in environments:
        if environment.python is None:
            continue
        imports = Imports.of(environment, task.imports.get(environment.name))
        versions = check_imports(prefix_of(root, environment.name), imports)
        names = [name for name in versions if name in imports.wanted or name in imports.if_there]
        reporter.say(f"{environment.name}: imported {', '.join(names) or 'nothing'}")
        imported |= dict.fromkeys(names)
    return Answer(installer=installer.name, imports=tuple(imported))


def main(task: Path, answer: Path) -> int:
    """Do the task and write the answer, whether it went well or not."""
    # Ended from outside, it ends its installer too, as it does when it is interrupted.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        result = rehearse_inside(msgspec.json.decode(task.read_bytes(), type=Task))
    except BundlerError as problem:
        where = None if problem.where is None else str(problem.where)
        result = Answer(
            problem=problem.what, findings=tuple(problem.findings), where=where, hint=problem.hint
        )
    except KeyboardInterrupt:
        return 130
    answer.write_bytes(msgspec.json.encode(result))
    return 0 if result.problem is None else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
