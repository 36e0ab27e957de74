"""``pack``, step by step: plan, fetch, prove, rehearse, write."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bundler.errors import DestinationError, UsageError
from bundler.launch_names import exceptions
from bundler.manifest import Manifest, Rehearsal, Writer
from bundler.workspace import PACKED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bundler.archive.member import Member
    from bundler.archive.recipe import Recipe
    from bundler.collect.models.source import CarriedModel
    from bundler.common.progress import Reporter
    from bundler.install.installer import InstallerWord
    from bundler.manifest import Environment, Runtime
    from bundler.work.selection import Selection

_SCRATCH = "packing"
_ABANDONED = 7 * 24 * 3600
"""Seconds after which no pack is at work any more: streaming a model over a slow line takes days."""


@dataclass(frozen=True, kw_only=True)
class PackOptions:
    """What the user chose besides environments and models."""

    outputs: tuple[Path, ...] = ()
    """Folders that get one of the bundle's name each, filled in turn; ``bundles`` where none is named."""
    name: str | None = None
    level: int = 1
    volume_size: int
    parity: int = 0
    threads: int | None = None
    jobs: int
    rehearse: bool = True
    rehearse_again: bool = False
    installer: InstallerWord = "auto"
    stream: bool = False
    rehash: bool = False
    replace: bool = False
    allow_launch: tuple[str, ...] = ()
    """Names that the models' launches may set though they aren't on the lists."""
    pixi: Path | None = None
    since: Path | None = None
    """A bundle, a manifest or an installation: what it has isn't carried again."""
    reporter: Reporter


def bundle_name(selection: Selection, options: PackOptions) -> str:
    """Return the bundle's name: ``GLM-4.7-cu128``, or what the user calls it.

    ``default`` says nothing on a disk's label, so an environment's own feature stands for it: ``cu126``.

    :raises UsageError: a name that can't be a folder's.
    """
    from bundler.archive.validate import name_is_safe

    words = [source.spec.name for source in selection.models]
    for environment in selection.environments:
        plain = environment.name == "default" and len(environment.aliases) == 1
        words.append(environment.aliases[0] if plain else environment.name)
    name = options.name or "-".join(words)
    if not name_is_safe(name):
        raise UsageError(
            f"a bundle can't be called {name!r}", hint="name it with letters, digits, '.', '_', '-'"
        )
    return name


def bundle_folders(selection: Selection, options: PackOptions) -> tuple[Path, ...]:
    """Return the bundle's own folders: one of its name on each disk.

    :raises UsageError: a name that can't be a folder's.
    """
    name = bundle_name(selection, options)
    return tuple(output / name for output in options.outputs or (selection.root / PACKED,))


def check_choices(selection: Selection, options: PackOptions, folders: Sequence[Path]) -> None:
    """Refuse what would be refused after hours of fetching.

    :raises UsageError: a level or a volume's size that can't be.
    :raises InputError: a model's launch sets what a manifest may not set by itself.
    :raises DestinationError: the bundle's folder can't be made, or lies inside a model's that it would carry.
    """
    from bundler.archive.recipe import Recipe
    from bundler.collect.models.folder import FolderSource

    head = Manifest(name=folders[0].name, writer=Writer(bundler="", libzstd=""))
    Recipe(head=head, members=(), level=options.level, volume_size=options.volume_size).check()
    specs = [source.spec for source in selection.models]
    exceptions(specs, options.allow_launch, f"the models of {folders[0].name}")
    sources = [source.folder for source in selection.models if isinstance(source, FolderSource)]
    for folder in folders:
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            raise DestinationError(
                "the folder for the bundle can't be written to",
                where=there,
                hint="write the bundle elsewhere with -o DISK",
            )
        for source in sources:
            if source.resolve() in folder.resolve().parents:
                raise DestinationError(
                    "the bundle would lie inside the model's folder, which it carries",
                    where=folder,
                    hint=f"name a folder outside of {source} with -o",
                )


def pack(selection: Selection, options: PackOptions) -> tuple[Manifest, tuple[Path, ...]]:
    """Fetch, prove and rehearse what was selected, and write the bundle.

    :returns: the bundle's manifest and its folders.
    :raises BundlerError: any step's; run again, each goes on where it stopped.
    """
    from bundler.archive.writer import write_bundle

    name = bundle_name(selection, options)
    folders = bundle_folders(selection, options)
    selection.fetch_artifacts(jobs=options.jobs, reporter=options.reporter)
    models = _models(selection, options)
    rehearsal = _rehearsal(selection, options)
    with _scratch(selection) as scratch:
        recipe = _recipe(name, selection, models, rehearsal, options, scratch)
        manifest = write_bundle(
            recipe, folders, threads=options.threads, replace=options.replace, reporter=options.reporter
        )
    return manifest, folders


@contextmanager
def _scratch(selection: Selection) -> Iterator[Path]:
    """Lend a folder for the runtime's archive: in the store, where it is a link to the one that is kept.

    What a killed pack left there is removed by a later one.
    """
    if not selection.environments:
        yield selection.root
        return
    folder = selection.store.root / _SCRATCH
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        if time.time() - old.stat().st_mtime > _ABANDONED:
            shutil.rmtree(old, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder.absolute()) as name:
        yield Path(name)


def _models(selection: Selection, options: PackOptions) -> list[CarriedModel]:
    from bundler.collect.models.source import carry

    return [
        carry(
            source,
            selection.weights,
            reporter=options.reporter,
            jobs=options.jobs,
            rehash=options.rehash,
            stream=options.stream,
        )
        for source in selection.models
    ]


def _rehearsal(selection: Selection, options: PackOptions) -> Rehearsal:
    """Install the environments with the network cut; where the host forbids that, the manifest says so."""
    if selection.workspace is None or not selection.environments:
        return Rehearsal(status="not rehearsed", reason="the bundle holds no environment")
    if not options.rehearse:
        return Rehearsal(status="not rehearsed", reason="--no-rehearse")
    from bundler.install.rehearsal import rehearse

    return rehearse(
        selection.workspace,
        selection.environments,
        selection.store,
        installer=options.installer,
        again=options.rehearse_again,
        reporter=options.reporter,
    )


def _recipe(
    name: str,
    selection: Selection,
    models: list[CarriedModel],
    rehearsal: Rehearsal,
    options: PackOptions,
    scratch: Path,
) -> Recipe:
    """Put together what decides the bundle's bytes."""
    from bundler.archive.recipe import Recipe
    from bundler.work.base import known_by_digest, read_base

    members = _members(selection, models)
    base = read_base(options.since) if options.since else None
    if base is not None:
        members = known_by_digest(members, base, options.reporter)
    runtime, companions = _runtime(selection, members, options, scratch)
    head = Manifest(
        name=name,
        # The writer fills in its own versions.
        writer=Writer(bundler="", libzstd=""),
        environments=_environments(selection, rehearsal),
        models=tuple(model.entry for model in models),
        rehearsal=rehearsal,
        runtime=runtime,
        requires=("delta",) if base else (),
        base=base.named if base else None,
    )
    told = notes(models)
    return Recipe(
        head=head,
        members=members,
        companions=companions,
        level=options.level,
        volume_size=options.volume_size,
        parity=options.parity,
        notes=(*told, *base.notes()) if base else tuple(told),
        base=base.contents if base else frozenset(),
    )


def _members(selection: Selection, models: list[CarriedModel]) -> list[Member]:
    """Return the tree in the stream's order: workspace, store, models."""
    from bundler.collect.entries import store_members, workspace_members

    members: list[Member] = []
    if selection.workspace is not None and selection.environments:
        members += workspace_members(selection.workspace)
        members += store_members(selection.environments, selection.store)
    for model in sorted(models, key=lambda one: one.entry.path):
        members += model.members
    return members


def _environments(selection: Selection, rehearsal: Rehearsal) -> tuple[Environment, ...]:
    from bundler.collect.entries import environment_entry
    from bundler.install.rehearsal import imports_of

    return tuple(
        environment_entry(one, selection.store, imports=imports_of(one, rehearsal))
        for one in selection.environments
    )


def _runtime(
    selection: Selection, members: Sequence[Member], options: PackOptions, scratch: Path
) -> tuple[Runtime | None, dict[str, Path | bytes]]:
    """Make what brings bundler itself. A bundle of models alone adds to an installation, which has it."""
    if selection.workspace is None or not selection.environments:
        return None, {}
    from bundler.runtime.build import build_runtime, install_script

    archive = scratch / "runtime.tar.gz"
    runtime = build_runtime(
        selection.workspace,
        selection.store,
        archive,
        pixi=options.pixi,
        reporter=options.reporter,
    )
    without = "no pixi: the target installs natively (--pixi adds one)"
    pixi = f"pixi {runtime.pixi}" if runtime.pixi else without
    options.reporter.say(f"runtime of {runtime.source}: Python {runtime.python}, {pixi}")
    names = {member.path.partition("/")[0] for member in members}
    script = install_script(runtime, sum(member.size for member in members), names)
    return runtime, {"install.sh": script, "runtime.tar.gz": archive}


def notes(models: Sequence[CarriedModel]) -> Iterator[str]:
    """Say what the models need, for README.txt."""
    from bundler.host.fit import needs_text

    for model in models:
        yield f"{model.entry.spec.name}:"
        for line in needs_text(model.entry.spec, model.entry.facts):
            yield f"  {line}"
