"""``clean``: what of the store and the weights no lock and no manifest here names, and its removal."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from bundler.common import durable
from bundler.common.durable import locked
from bundler.errors import DestinationError, InputError
from bundler.install.installer import Caches, one_at_a_time
from bundler.install.rehearsal import abandoned
from bundler.installation import RECEIPT, WEIGHTS
from bundler.store import FETCH_LOCK, MIRROR, Store
from bundler.workspace import OWN_ENVIRONMENT, Workspace, normalised, own_workspace

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from bundler.common.progress import Reporter
    from bundler.lockfile import LockPackage

MODEL_STATE = ".bundler"
"""What lies in ``weights`` beside the models: downloads under way, and what is remembered of them."""


@dataclass(frozen=True)
class Waste:
    """Files that nothing here needs, as one line says them."""

    what: str
    paths: tuple[Path, ...]
    size: int
    """Bytes that their removal frees: files with a further name elsewhere count nothing."""
    kept: bool = False
    """Said, and left where it is, as only the user can tell."""


def clean(
    root: Path,
    keep: Sequence[str] = (),
    *,
    caches: bool = False,
    weights: bool = False,
    dry_run: bool = False,
    reporter: Reporter,
) -> list[Waste]:
    """Free what no lock and no manifest of a workspace names.

    :param keep: environments whose artifacts stay; all of the lock's where none is named.
    :param caches: remove the installers' caches whole; the next rehearsal fills them again.
    :param weights: remove models, too, that no manifest here names.
    :param dry_run: say it, and remove nothing.
    :raises BundlerError: an environment isn't there, this is an installation, or a file can't be removed.
    """
    if (root / RECEIPT).exists():
        raise InputError(
            "this is an installation, not a workspace",
            where=root,
            hint="its store is what it was unpacked from; bundler install --prune-store drops it whole",
        )
    workspace, store = Workspace.load(root), Store.of(root)
    needed = list(_packages(workspace, keep))
    if not store.root.is_dir() or store.root.is_symlink():
        if store.root.is_symlink():
            raise InputError(
                "the store is a link: other workspaces may use it",
                where=store.root,
                hint="clean it from the workspace that it lies in",
            )
        return list(_models(root, free=weights, dry_run=dry_run))
    found = Caches.of_store(store.root)
    store.memory.mkdir(parents=True, exist_ok=True)
    waiting = partial(reporter.say, "another bundler fills this store; waiting for it")
    (store.memory / FETCH_LOCK).touch()
    with locked(store.memory / FETCH_LOCK, waiting), one_at_a_time(found, reporter):
        unused = [
            waste("artifacts that the lock doesn't name", _artifacts(store, needed)),
            waste("what ended rehearsals left", abandoned(store.root)),
            *_cached(found, needed, whole=caches),
        ]
        unused = [*(one for one in unused if one.paths), *_models(root, free=weights)]
        if not dry_run:
            for one in unused:
                _remove(one)
            _drop_empty(store.root / MIRROR)
        return unused


def waste(what: str, paths: Iterable[Path], *, kept: bool = False) -> Waste:
    """Return paths with the bytes that their removal frees."""
    tops = tuple(paths)
    seen: dict[tuple[int, int], list[int]] = defaultdict(list)
    for path in (below for top in tops for below in _below(top)):
        status = path.lstat()
        seen[status.st_dev, status.st_ino] += [status.st_nlink, status.st_blocks * 512]
    size = sum(rows[1] for rows in seen.values() if len(rows) // 2 >= rows[0])
    return Waste(what, tops, size, kept)


def _packages(workspace: Workspace, keep: Sequence[str]) -> Iterator[LockPackage]:
    """Yield what the lock names for the environments that stay, on each of their platforms."""
    names = [workspace.environment(name).name for name in keep] or list(workspace.lock.environments)
    own = own_workspace(workspace)
    for place, environments in ((workspace, names), (own, [OWN_ENVIRONMENT])):
        described = place.lock.by_location()
        for name in environments:
            for selectors in place.lock.environments[name].packages.values():
                for selector in selectors:
                    yield from described.get(selector.location, ())


def _artifacts(store: Store, needed: Iterable[LockPackage]) -> Iterator[Path]:
    """Yield the mirror's files that belong to none of the packages, downloads under way among them."""
    named = set()
    for package in needed:
        with contextlib.suppress(InputError):  # a path or a repository: never in the store
            named.add(store.path(package.location.removeprefix("direct+")))
    for path in (store.root / MIRROR).rglob("*"):
        file = path.with_name(path.name.removesuffix(".origin").removesuffix(".partial"))
        if path not in named and file not in named and not path.is_dir():
            yield path


def _cached(caches: Caches, needed: Sequence[LockPackage], *, whole: bool) -> Iterator[Waste]:
    """Yield what the installers unpacked of packages that the lock doesn't name."""
    if whole:
        yield waste("the installers' caches", (one for one in (caches.conda, caches.uv) if one.exists()))
        return
    stems = {package.location.rpartition("/")[2] for package in needed if package.conda}
    stems = {stem.removesuffix(".conda").removesuffix(".tar.bz2") for stem in stems}
    conda = (path for path in caches.conda.glob("*-*-*") if path.name.removesuffix(".lock") not in stems)
    yield waste("unpacked conda packages that the lock doesn't name", conda)
    wheels = {_distribution(one.location.rpartition("/")[2]) for one in needed if one.pypi}
    yield waste(
        "unpacked wheels that the lock doesn't name",
        (
            path
            for path in caches.uv.glob("archive-v*/*")
            if (infos := list(path.glob("*.dist-info"))) and _distribution(infos[0].name) not in wheels
        ),
    )


def _distribution(filename: str) -> str:
    """Return name and version of a wheel or of a ``.dist-info`` folder, as they are compared."""
    name, _, rest = filename.removesuffix(".dist-info").partition("-")
    return f"{normalised(name)}-{rest.partition('-')[0].replace('%2B', '+')}"


def _models(root: Path, *, free: bool, dry_run: bool = True) -> Iterator[Waste]:
    """Yield the models, whole or under way, that no manifest here names."""
    from bundler.collect.models.specs import known_specs, manifest_folders

    known, problems = known_specs(manifest_folders(root))
    if problems:
        raise problems[0]
    named = {one.spec.name for one in known}
    weights = root / WEIGHTS
    under_way = weights / MODEL_STATE / "partial"
    for name in sorted({path.name for place in (weights, under_way) for path in place.glob("[!.]*")} - named):
        places = [path for path in (weights / name, under_way / name) if path.is_dir()]
        if places and not (weights / name).is_symlink():
            one = waste(f"the model {name}, which no manifest here names", places, kept=not free)
            if not dry_run:
                _remove(one)
            yield one


def _below(top: Path) -> Iterator[Path]:
    yield top
    if top.is_dir() and not top.is_symlink():
        yield from top.rglob("*")


def _remove(one: Waste) -> None:
    if one.kept:
        return
    for path in one.paths:
        try:
            durable.remove(path)
        except OSError as problem:
            raise DestinationError(
                f"can't remove: {problem.strerror}", where=problem.filename or path, hint="check who owns it"
            ) from problem


def _drop_empty(top: Path) -> None:
    """Remove the folders that nothing is left in."""
    for folder in sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True):
        with contextlib.suppress(OSError):
            folder.rmdir()
