"""pixi.lock as text: its schema, and one locked package of it as an artifact or as a refusal.

The YAML says everything that bundler needs (addresses, sums, sizes, the wheels' indexes, platforms with their
virtual packages), and py-rattler exposes neither the indexes nor version 7's platforms. So the YAML is read
alone: ``bundler install`` and ``serve --dry-run`` work where py-rattler isn't installed, and a plan takes
milliseconds. py-rattler reads the same file where records are installed, and a test holds the two readings
against each other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import msgspec
import yaml

from bundler.artifact import Artifact
from bundler.common.broken import BROKEN_TEXT
from bundler.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

OLDEST, NEWEST = 4, 7
"""The lock versions that are understood."""
ARCHIVES = (".conda", ".tar.bz2")
DIGESTS = {"sha256": re.compile(r"[0-9a-f]{64}\Z"), "md5": re.compile(r"[0-9a-f]{32}\Z")}
SCHEME = re.compile(r"(?:file|https?)://")
GLIBC_OF_LEGACY_TAGS = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}

UNFETCHED = {"s3": "an S3 bucket", "oci": "an OCI registry"}
"""Schemes that pixi's channels may have and the store can't be filled from."""

RefusalKind = Literal["sdist", "git", "path", "channel", "source", "platform", "empty", "hash", "address"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A locked package that can't be carried, and the way out."""

    kind: RefusalKind
    package: str
    """``name-version``, or the name alone where the lock has no version."""
    reason: str
    fix: str

    def __str__(self) -> str:
        """Return the finding as messages show it."""
        return f"{self.package}: {self.reason}; {self.fix}"


class LockPlatform(msgspec.Struct, frozen=True, rename="kebab"):
    """A platform of a version 7 lock: its name is free, its subdir and virtual packages say what it is."""

    name: str
    subdir: str | None = None
    virtual_packages: tuple[str, ...] = ()


class LockChannel(msgspec.Struct, frozen=True):
    """A channel of an environment."""

    url: str


class LockPackage(msgspec.Struct, frozen=True):
    """A package as the lock lists it, or a selector that names one: a selector has the location only,
    and in version 6 as much more as tells two packages of one location apart.
    """

    conda: str | None = None
    pypi: str | None = None
    conda_source: str | None = None
    name: str | None = None
    version: str | None = None
    build: str | None = None
    subdir: str | None = None
    sha256: str | None = None
    md5: str | None = None
    size: int | None = None
    depends: tuple[str, ...] = ()
    index: str | None = None
    editable: bool = False

    @property
    def location(self) -> str:
        """The address or path, whatever the kind."""
        return self.conda or self.pypi or self.conda_source or ""

    def is_named_by(self, selector: LockPackage) -> bool:
        """Say whether a selector of the same location means this package."""
        names = ("name", "version", "build", "subdir")
        pairs = ((getattr(selector, name), getattr(self, name)) for name in names)
        return all(wanted is None or have is None or wanted == have for wanted, have in pairs)


class LockEnvironment(msgspec.Struct, frozen=True):
    """An environment as the lock lists it."""

    packages: dict[str, tuple[LockPackage, ...]]
    """Selectors, by the platform's name."""
    channels: tuple[LockChannel, ...] = ()
    indexes: tuple[str, ...] = ()


class LockDocument(msgspec.Struct, frozen=True):
    """The file."""

    version: int
    environments: dict[str, LockEnvironment]
    packages: tuple[LockPackage, ...] = ()
    platforms: tuple[LockPlatform, ...] = ()

    def by_location(self) -> dict[str, list[LockPackage]]:
        """Return the packages by their location."""
        found: dict[str, list[LockPackage]] = {}
        for package in self.packages:
            found.setdefault(package.location, []).append(package)
        return found

    def platform(self, name: str) -> LockPlatform:
        """Return a platform of the lock; version 6 has names only, which are subdirs."""
        known = {platform.name: platform for platform in self.platforms}
        return known.get(name) or LockPlatform(name=name)


def read_lock(path: Path, data: bytes | None = None) -> LockDocument:
    """Read a lock.

    :param data: its bytes, where they don't lie in a file of their own; the path is for messages then.
    :raises InputError: not there, broken YAML (with the line), not of the lock's form, or of a version
        that is not understood.
    """
    document = _load_yaml(path, data)
    version = document.get("version") if isinstance(document, dict) else None
    if not isinstance(version, str) or not re.fullmatch(r"[0-9]{1,9}", version):
        raise InputError("pixi.lock has no version", where=path, hint="write it again: pixi lock")
    if int(version) > NEWEST:
        what = f"pixi.lock is of version {version}; this bundler understands {OLDEST} to {NEWEST}"
        hint = "use a newer bundler, or lock with a pixi that writes an older version"
        raise InputError(what, where=path, hint=hint)
    if int(version) < OLDEST:
        what = f"pixi.lock is of version {version}, older than {OLDEST}"
        raise InputError(what, where=path, hint="lock again with a pixi of today: pixi lock")
    _name_by_kind(document)
    try:
        # BaseLoader leaves every scalar a string, so that no version or sum is taken for a number or a date.
        return msgspec.convert(document, LockDocument, strict=False)
    except msgspec.ValidationError as problem:
        raise InputError(
            f"pixi.lock is not of a lock's form: {problem}", where=path, hint="write it again: pixi lock"
        ) from problem


def _name_by_kind(document: Any) -> None:
    """Write packages of versions 4 and 5 as version 6 has them: the address stands under its kind's name."""
    packages = document.get("packages")
    for package in packages if isinstance(packages, list) else ():
        if isinstance(package, dict) and isinstance(kind := package.get("kind"), str):
            package.setdefault(kind, package.get("url", package.get("path")))


def _load_yaml(path: Path, data: bytes | None) -> Any:
    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    try:
        return yaml.load(path.read_bytes() if data is None else data, Loader=loader)
    except yaml.MarkedYAMLError as problem:
        line = f" at line {problem.problem_mark.line + 1}" if problem.problem_mark else ""
        raise InputError(
            f"pixi.lock is broken YAML{line}: {problem.problem or problem}",
            where=path,
            hint="a merge conflict? write it again: pixi lock",
        ) from problem
    except (yaml.YAMLError, *BROKEN_TEXT) as problem:
        raise InputError(
            f"pixi.lock can't be read as YAML: {problem}", where=path, hint="write it again: pixi lock"
        ) from problem


def artifact_or_refusal(package: LockPackage, subdir: str) -> tuple[Artifact | None, Refusal | None]:
    """Return a locked package as an artifact, or why it can't be carried.

    A wheel or conda package without a hash gives both: the user may allow it.

    :param package: an entry of the lock's ``packages``.
    :param subdir: the platform the bundle is for (``linux-64``).
    """
    if package.conda_source is not None:
        return None, _source(package.name or package.conda_source.split("[")[0].strip())
    if package.conda is not None:
        return _conda(package, subdir)
    return _wheel(package, subdir)


def _conda(package: LockPackage, subdir: str) -> tuple[Artifact | None, Refusal | None]:
    location = package.location
    path = urlsplit(location).path
    filename = path.rsplit("/", 1)[-1]
    stem = next((filename.removesuffix(ending) for ending in ARCHIVES if filename.endswith(ending)), None)
    if stem is None:
        return None, _source(package.name or location)
    name, version, build = [*stem.rsplit("-", 2), "", ""][:3]
    name, version, build = package.name or name, package.version or version, package.build or build
    label = f"{name}-{version}"
    if not SCHEME.match(location):
        return None, _unreachable(label, location)
    place = package.subdir or path.rsplit("/", 2)[-2]
    if place not in (subdir, "noarch"):
        return None, Refusal(
            "platform",
            label,
            f"is for {place}, not for {subdir}",
            f"add {subdir} to the workspace's platforms and lock again",
        )
    sha256, md5 = _digests(package)
    artifact = Artifact(
        "conda", name, version, location, sha256, package.size, build=build, subdir=place, md5=md5
    )
    return artifact, None if artifact.pinned else _unhashed(label)


def _wheel(package: LockPackage, subdir: str) -> tuple[Artifact | None, Refusal | None]:
    location = package.location.removeprefix("direct+")
    filename = urlsplit(location).path.rsplit("/", 1)[-1]
    parts = filename.removesuffix(".whl").split("-")
    name = package.name or parts[0]
    version = package.version or (parts[1] if filename.endswith(".whl") and len(parts) > 1 else "")
    label = f"{name}-{version}" if version else name
    if re.match(r"(?:git|hg|svn|bzr)\+", location):
        return None, Refusal(
            "git", label, f"comes from a repository ({location})", "depend on a released wheel of it instead"
        )
    if package.editable or not SCHEME.match(location):
        return None, _unreachable(label, location)
    if not filename.endswith(".whl"):
        return None, Refusal(
            "sdist",
            label,
            f"is a source distribution ({filename}), which would be built on the GPU host",
            "choose a version with a wheel, or build the wheel once and depend on its address",
        )
    if not wheel_fits(filename, subdir):
        return None, Refusal(
            "platform", label, f"is a wheel for another platform ({filename})", f"lock it for {subdir}"
        )
    sha256, md5 = _digests(package)
    artifact = Artifact("wheel", name, version, location, sha256, package.size, index=package.index, md5=md5)
    return artifact, None if artifact.pinned else _unhashed(label)


def _digests(package: LockPackage) -> tuple[str | None, str | None]:
    """Return the sha256 that the lock states, and where it states none the md5."""
    sha256 = _digest(package, "sha256")
    return sha256, None if sha256 else _digest(package, "md5")


def _digest(package: LockPackage, kind: Literal["sha256", "md5"]) -> str | None:
    stated: str | None = getattr(package, kind)
    if stated is None:
        return None
    digest = stated.lower()
    if not DIGESTS[kind].match(digest):
        raise InputError(
            f"pixi.lock: {package.location} has a {kind} that is none: {stated!r}",
            hint="write the lock again: pixi lock",
        )
    return digest


def _source(name: str) -> Refusal:
    return Refusal(
        "source",
        name,
        "is a conda source package, which would be built on the GPU host",
        "build it once, publish it to a channel and depend on that",
    )


def _unreachable(label: str, location: str) -> Refusal:
    scheme = urlsplit(location).scheme
    if scheme in UNFETCHED:
        return Refusal(
            "channel",
            label,
            f"comes from {UNFETCHED[scheme]} ({location}), which bundler doesn't fetch from",
            "depend on it in a channel or index of http://, https:// or file://",
        )
    return Refusal(
        "path",
        label,
        f"lies at a path of this machine ({location})",
        "depend on a package in a channel or index, or on an address",
    )


def _unhashed(label: str) -> Refusal:
    return Refusal(
        "hash",
        label,
        "has no sha256 in the lock, and no md5",
        "use an index or channel that states it and lock again, or --allow-unhashed",
    )


def wheel_fits(filename: str, subdir: str) -> bool:
    """Say whether a wheel's platform tag fits a conda platform; only ``linux-64`` has wheels of its own."""
    tags = filename.removesuffix(".whl").rsplit("-", 1)[-1].split(".")
    machine = {"linux-64": "x86_64", "linux-aarch64": "aarch64"}.get(subdir, "x86_64")
    return any(
        tag == "any" or (tag.startswith(("manylinux", "linux_")) and tag.endswith(machine)) for tag in tags
    )


def glibc_of_wheel(filename: str) -> tuple[int, int] | None:
    """Return the oldest glibc a wheel's tags accept, or ``None`` where they name none."""
    found = []
    for tag in filename.removesuffix(".whl").rsplit("-", 1)[-1].split("."):
        if match := re.match(r"manylinux_(\d{1,4})_(\d{1,4})_", tag):
            found.append((int(match[1]), int(match[2])))
        elif (legacy := tag.split("_")[0]) in GLIBC_OF_LEGACY_TAGS:
            found.append(GLIBC_OF_LEGACY_TAGS[legacy])
    return min(found, default=None)


def glibc_of_depends(depends: Iterable[str]) -> tuple[int, int] | None:
    """Return the oldest glibc a conda record accepts, or ``None`` where it doesn't say."""
    found = [
        (int(match[1]), int(match[2]))
        for depend in depends
        if depend.startswith("__glibc")
        for match in re.finditer(r">=(\d{1,4})\.(\d{1,4})", depend)
    ]
    return max(found, default=None)
