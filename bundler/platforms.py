"""Which of a lock's platforms an environment is installed for: pixi takes the first of the manifest's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from bundler.lockfile import LockDocument, LockEnvironment, LockPlatform

PLATFORM = "linux-64"
"""The platform that bundles are for, as conda names it."""
CUDA = "__cuda"
CUDA_ARCH = "__cuda_arch"
HOST_PACKAGES = frozenset({"__unix", "__linux", "__glibc", "__archspec", CUDA, CUDA_ARCH})
"""Virtual packages that a GPU host has; a platform that asks for another one isn't its platform."""
DEFAULTS = {"__unix": "0", "__linux": "4.18", "__glibc": "2.28", "__archspec": "x86_64"}
"""What pixi takes for granted on linux-64, and never asks a host for (``pixi_manifest/src/platform.rs``)."""
KEYS = {"cuda": CUDA, "archspec": "__archspec", "glibc": "__glibc", "linux": "__linux"}
"""The manifest's words for virtual packages, in the order in which pixi makes a platform's name of them."""


@dataclass(frozen=True)
class Candidate:
    """A platform of the lock that a GPU host fits."""

    name: str
    """In the lock: ``p1``."""
    declared: str
    """In the manifest: ``gpu``."""
    virtual_packages: tuple[str, ...] = ()
    """What it was locked for (``__glibc=2.28``)."""

    @cached_property
    def asked(self) -> Mapping[str, str]:
        """The virtual packages that pixi asks a host for, with the least version of each."""
        stated = _versions(self.virtual_packages)
        return {
            name: version
            for name, version in stated.items()
            if name not in DEFAULTS or _newer(version, DEFAULTS[name])
        }

    def fits(self, offered: Mapping[str, str]) -> bool:
        """Say whether pixi takes it for runnable.

        :param offered: a host's virtual packages, as :func:`bundler.host.facts.virtual_packages` gives them:
            an empty version stands for what it lacks; what isn't named isn't known, and counts as there.
        """
        return not any(
            name in offered and (not offered[name] or _newer(version, offered[name]))
            for name, version in self.asked.items()
        )

    @property
    def words(self) -> str:
        """Its names: ``gpu (p1 in the lock)``."""
        return self.name if self.name == self.declared else f"{self.declared} ({self.name} in the lock)"


def usable_platforms(
    lock: LockDocument, environment: LockEnvironment, manifest: Mapping[str, Any]
) -> tuple[Candidate, ...]:
    """Return the platforms of an environment that a GPU host fits, in the order in which pixi takes them.

    The lock is sorted by name, so the order is the manifest's.
    """
    usable = [
        platform
        for platform in map(lock.platform, environment.packages)
        if subdir_of(platform) == PLATFORM and set(_versions(platform.virtual_packages)) <= HOST_PACKAGES
    ]
    declared = _declared(lock.platforms, manifest)
    order = [*declared, *(platform.name for platform in lock.platforms if platform.name not in declared)]
    usable.sort(key=lambda one: order.index(one.name) if one.name in order else -1)
    return tuple(
        Candidate(one.name, declared.get(one.name, one.name), one.virtual_packages) for one in usable
    )


def choose_platform(
    candidates: Sequence[Candidate], wanted: str | None, offered: Mapping[str, str]
) -> Candidate | None:
    """Return the platform to carry: the one that is wanted, else the one that pixi takes on the target.

    :param wanted: its name, in the lock or in the manifest.
    :param offered: what is known of the target, as for :meth:`Candidate.fits`. Where it fits none, the first
        is taken, for the checks of the host to judge.
    """
    named = (one for one in candidates if wanted in (one.name, one.declared))
    return next(named, None) or pixis_choice(candidates, offered) or next(iter(candidates), None)


def pixis_choice(candidates: Iterable[Candidate], offered: Mapping[str, str]) -> Candidate | None:
    """Return the platform that pixi takes on a host: the first in its order that the host satisfies."""
    return next((one for one in candidates if one.fits(offered)), None)


def subdir_of(platform: LockPlatform) -> str:
    """Return conda's folder for a platform: version 6 has no other name for it."""
    return platform.subdir or platform.name


def cuda_of(virtual_packages: Iterable[str]) -> str | None:
    """Return the CUDA version that a platform's virtual packages ask of the host: ``12``."""
    return _versions(virtual_packages).get(CUDA) or None


def _declared(platforms: Sequence[LockPlatform], manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return the manifest's names of the lock's platforms that it declares, in its order.

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
    return {found[index]: entries[index][0] for index in sorted(found)}


def _entries(manifest: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each platform that the manifest declares: its name, and what it states about itself."""
    table = manifest.get("workspace", manifest.get("project"))
    declared = table.get("platforms") if isinstance(table, dict) else None
    for entry in declared if isinstance(declared, list) else ():
        if isinstance(entry, str):
            yield entry, {"subdir": entry}
        elif isinstance(entry, dict) and isinstance(subdir := entry.get("platform", entry.get("name")), str):
            stated = dict(_stated(entry))
            name = str(entry.get("name", _derived_name(subdir, stated)))
            yield name, {"subdir": subdir} | stated


def _stated(entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the virtual packages of an entry (``cuda = "12"``, ``cuda = { driver, arch }``, ``__cuda``)."""
    for key, value in entry.items():
        name = KEYS.get(key, key)
        if name == CUDA and isinstance(value, dict):
            pairs = ((CUDA, value.get("driver")), (CUDA_ARCH, value.get("arch")))
            yield from ((part, version) for part, version in pairs if isinstance(version, str))
        elif name.startswith("__") and isinstance(value, str):
            yield name, value.partition("=")[0]


def _derived_name(subdir: str, stated: Mapping[str, str]) -> str:
    """Return the name that pixi gives to a platform without one: ``linux-64-cuda-12-8``."""
    words = {package: key for key, package in KEYS.items()}
    parts = (f"{words.get(name, name.lstrip('_'))}-{version}" for name, version in stated.items())
    return "-".join([subdir, *(re.sub(r"[^0-9A-Za-z]+", "-", part) for part in parts)])


def _described(platform: LockPlatform) -> dict[str, str]:
    return {"subdir": subdir_of(platform)} | _versions(platform.virtual_packages)


def _versions(virtual_packages: Iterable[str]) -> dict[str, str]:
    """Return virtual packages with their versions: ``__cuda=12`` is ``{"__cuda": "12"}``.

    A microarchitecture is a build string, whose version says nothing: ``__archspec=0=x86_64_v3``.
    """
    parts = (re.split(r"[ =<>!~]+", package) for package in virtual_packages)
    return {
        words[0]: words[-1 if words[0] == "__archspec" else 1] if len(words) > 1 else "" for words in parts
    }


def _newer(version: str, other: str) -> bool:
    """Say whether a version's numbers are higher: ``12.8`` is than ``12``, ``12`` isn't than ``12.0``."""
    first, second = ([int(part) for part in re.findall(r"\d+", text)] for text in (version, other))
    length = max(len(first), len(second))
    return first + [0] * (length - len(first)) > second + [0] * (length - len(second))
