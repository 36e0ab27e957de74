"""Which of a lock's platforms an environment is installed for: pixi takes the first of pixi.toml's order."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from bundler.lockfile import LockDocument, LockEnvironment, LockPlatform

PLATFORM = "linux-64"
"""The platform that bundles are for, as conda names it."""
HOST_PACKAGES = frozenset({"__unix", "__linux", "__glibc", "__archspec", "__cuda"})
"""Virtual packages that a GPU host has; a platform that asks for another one isn't its platform."""


def usable_platforms(
    lock: LockDocument,
    environment: LockEnvironment,
    manifest: Mapping[str, Any],
    wanted: str | None = None,
) -> list[LockPlatform]:
    """Return the platforms of an environment that a GPU host fits, the one that pixi takes there first.

    The lock is sorted by name, so the order is pixi.toml's.

    :param wanted: the platform that is to come first all the same, by its name in the lock.
    """
    usable = [
        platform
        for platform in map(lock.platform, environment.packages)
        if subdir_of(platform) == PLATFORM and set(_versions(platform.virtual_packages)) <= HOST_PACKAGES
    ]
    declared = [platform.name for platform in lock.platforms]
    order = [*_declared_order(lock.platforms, manifest), *declared]
    usable.sort(key=lambda one: order.index(one.name) if one.name in order else -1)
    return sorted(usable, key=lambda one: one.name != wanted)


def subdir_of(platform: LockPlatform) -> str:
    """Return conda's folder for a platform: version 6 has no other name for it."""
    return platform.subdir or platform.name


def cuda_of(virtual_packages: Iterable[str]) -> str | None:
    """Return the CUDA version that a platform's virtual packages ask of the host: ``12``."""
    return _versions(virtual_packages).get("__cuda") or None


def _declared_order(platforms: Sequence[LockPlatform], manifest: Mapping[str, Any]) -> list[str]:
    """Return the lock's names of the platforms that pixi.toml declares, in its order.

    pixi gives a platform with virtual packages of its own another name in the lock (``p1``): there it is
    known by its subdir and by what it asks for.
    """
    entries = list(_entries(manifest))
    left = {platform.name: platform for platform in platforms}
    found: dict[int, str] = {}
    richest_first = sorted(range(len(entries)), key=lambda index: -len(entries[index][1]))
    for index in richest_first:
        name, stated = entries[index]
        fitting = [one for one in left.values() if stated.items() <= _described(one).items()]
        if fitting:
            best = min(fitting, key=lambda one: (one.name != name, len(one.virtual_packages)))
            found[index] = left.pop(best.name).name
    return [found[index] for index in sorted(found)]


def _entries(manifest: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each platform that pixi.toml declares: its name, and what it states about itself."""
    table = manifest.get("workspace", manifest.get("project"))
    declared = table.get("platforms") if isinstance(table, dict) else None
    for entry in declared if isinstance(declared, list) else ():
        if isinstance(entry, str):
            yield entry, {"subdir": entry}
        elif isinstance(entry, dict) and isinstance(subdir := entry.get("platform"), str):
            stated = {"subdir": subdir}
            if isinstance(cuda := entry.get("cuda"), str):
                stated["__cuda"] = cuda
            yield str(entry.get("name", subdir)), stated


def _described(platform: LockPlatform) -> dict[str, str]:
    return {"subdir": subdir_of(platform)} | _versions(platform.virtual_packages)


def _versions(virtual_packages: Iterable[str]) -> dict[str, str]:
    """Return virtual packages with their versions: ``__cuda=12`` is ``{"__cuda": "12"}``."""
    parts = (re.split(r"[ =<>!~]+", package) for package in virtual_packages)
    return {words[0]: words[1] if len(words) > 1 else "" for words in parts}
