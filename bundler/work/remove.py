"""What an installation needs no more, taken out: a model, an environment, or all of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from bundler import generations
from bundler.archive.bundle import is_bundle
from bundler.common import durable
from bundler.common.durable import holds_file
from bundler.errors import BundlerError, DestinationError, InputError, UnknownNameError
from bundler.generations import SHARED
from bundler.installation import (
    RECEIPT,
    STATE,
    WEIGHTS,
    Installation,
    counts,
    environment_path,
    write_receipt,
)
from bundler.serve.environment_checks import user_folder
from bundler.serve.server_record import run_folder, servers
from bundler.store import NAME as STORE
from bundler.store import Store
from bundler.work.running import UNITS, units_of
from bundler.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from bundler.common.progress import Reporter


@dataclass(frozen=True)
class Removed:
    """What was taken out."""

    names: tuple[str, ...]
    freed: int
    """Bytes that the disk has back: what other generations or caches share stays theirs."""


def remove(installation: Installation, names: Sequence[str]) -> Removed:
    """Take models and environments out; run again, it removes what was left.

    :param names: of models or environments, or their aliases.
    :raises UnknownNameError: there is none of a name.
    :raises DestinationError: a server uses one, or something can't be removed.
    """
    models, environments, left = _sorted(installation, names)
    _refuse_served(installation, models, environments)
    gone = [installation.models[name].path for name in models]
    for name in environments:
        gone += [environment_path(name), *_only_of(installation, name, environments)]
    if gone:
        _forget(installation, gone, environments)
    return Removed((*models, *environments, *left), _delete(installation.root, [*gone, *left.values()]))


def _sorted(installation: Installation, names: Sequence[str]) -> tuple[list[str], list[str], dict[str, str]]:
    """Return models, environments, and the folders of what an interrupted run left of either."""
    models, environments, left = [], [], {}
    for name in names:
        places = [f"{WEIGHTS}/{name}", environment_path(name)]
        there = [place for place in places if "/" not in name and (installation.root / place).is_dir()]
        try:
            models.append(installation.model(name).spec.name)
        except UnknownNameError:
            try:
                environments.append(installation.environment(name).name)
            except UnknownNameError:
                if not there:
                    have = ", ".join([*installation.models, *installation.environments]) or "none"
                    raise UnknownNameError(
                        f"no model or environment {name!r} here; there are: {have}", where=installation.root
                    ) from None
                left[name] = there[0]
    return models, environments, left


def _refuse_served(installation: Installation, models: Sequence[str], environments: Sequence[str]) -> None:
    for one in servers(run_folder(installation.root)):
        if one.running and (one.model in models or one.environment in environments):
            raise DestinationError(
                f"{one.model} is being served on port {one.port}, from the environment {one.environment}",
                where=installation.home,
                hint=f"end it first: bundler stop --port {one.port}",
            )


def _only_of(installation: Installation, name: str, others_going: Iterable[str]) -> list[str]:
    """Return the store's files that this environment alone needs."""
    store = Store.of(installation.root)
    try:
        workspace = Workspace.load(installation.root)
    except BundlerError:
        return []
    stay = {*installation.environments} - {*others_going}
    needed = {artifact.url for one in stay for artifact in workspace.environment(one).artifacts}
    own = [one.url for one in workspace.environment(name).artifacts if one.url not in needed]
    return [store.path(url).relative_to(installation.root).as_posix() for url in own]


def _forget(installation: Installation, gone: Sequence[str], environments: Sequence[str]) -> None:
    """Let the receipt name them no more: what is deleted after that is missed by nobody."""
    receipt = installation.receipt
    bundles = tuple(
        msgspec.structs.replace(one, gone=tuple(sorted({*one.gone, *gone}))) for one in receipt.bundles
    )
    write_receipt(
        installation.root,
        msgspec.structs.replace(
            receipt,
            bundles=bundles,
            environments=tuple(one for one in receipt.environments if one.name not in environments),
            files=tuple(file for file in receipt.files if counts(file.path, gone)),
        ),
    )


def _delete(root: Path, places: Iterable[str]) -> int:
    """Delete folders and files of a generation; return the bytes that the disk has back."""
    freed = 0
    for place in places:
        path = root / place
        freed += sum(one.st_blocks * 512 for one in _files(path) if one.st_nlink == 1)
        try:
            durable.remove(path)
        except OSError as problem:
            raise DestinationError(
                f"{place} can't be removed: {problem.strerror}",
                where=problem.filename or path,
                hint="end what uses it; the same command goes on",
            ) from problem
    return freed


def _files(top: Path) -> Iterable[os.stat_result]:
    if top.is_file():
        yield top.lstat()
    for folder, _, names in os.walk(top):
        yield from (os.lstat(f"{folder}/{name}") for name in names)


@dataclass(frozen=True)
class Leaving:
    """What an uninstallation removes."""

    home: Path
    units: tuple[Path, ...]
    """systemd's units that start a server from here."""
    caches: tuple[Path, ...]
    """This user's own, where the installation belonged to another."""
    strangers: tuple[str, ...]
    """What lies in the folder and isn't bundler's: it stays."""


def what_leaves(home: Path, units: Path = UNITS) -> Leaving:
    """Say what belongs to an installation, also to what an interrupted unpack or uninstall left of one.

    :raises InputError: there is none.
    :raises DestinationError: a server of it runs.
    """
    _refuse_others(home)
    for one in servers(run_folder(home)):
        if one.running:
            raise DestinationError(
                f"a server of this installation runs: {one.model} on port {one.port}, pid {one.pid}",
                where=home,
                hint="end it first: bundler stop --all",
            )
    ours = {*SHARED, ".pixi", WEIGHTS, STORE}
    for number in generations.read(home).whole if holds_file(home, RECEIPT) else ():
        entries = Installation(generations.root_of(home, number), follow=False).entries
        ours |= {path.partition("/")[0] for path in entries}
    cache = user_folder(home, "cache")
    return Leaving(
        home=home,
        units=tuple(units_of(home, units)),
        caches=(cache.parent,) if cache.parent.is_dir() else (),
        strangers=tuple(sorted(child.name for child in home.iterdir() if child.name not in ours)),
    )


def _refuse_others(home: Path) -> None:
    """Refuse a folder that never was an installation."""
    if (home / STATE).is_dir():
        return
    what = "a bundle" if is_bundle(home) else "no installation of bundler's"
    raise InputError(
        f"this is {what}: there is nothing to uninstall, and nothing was removed",
        where=home,
        hint="name the folder that bundler unpack was given as DEST",
    )


def uninstall(leaving: Leaving, reporter: Reporter) -> None:
    """Remove it; run again, it goes on. The installation's own state goes last.

    :raises DestinationError: something can't be removed.
    """
    for path in leaving.units:
        _delete(path.parent, [path.name])
        reporter.say(f"removed {path}; tell systemd: systemctl daemon-reload")
    names = [child.name for child in leaving.home.iterdir() if child.name not in leaving.strangers]
    last = [name for name in names if name in SHARED]
    _delete(leaving.home, [*(name for name in names if name not in SHARED), *sorted(last, reverse=True)])
    for folder in leaving.caches:
        _delete(folder.parent, [folder.name])
    if not leaving.strangers:
        leaving.home.rmdir()
