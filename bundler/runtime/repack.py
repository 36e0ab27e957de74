"""Wheels of what is installed in the interpreter that runs: bundler itself, and where it must, what it needs.

A wheel is made again from an installed distribution's ``RECORD``, without a network or a build tool. The same
files give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import json
import re
import sys
import tomllib
import zipfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import bundler
from bundler.errors import DamagedError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from importlib.metadata import Distribution, PackagePath

PACKAGE = Path(bundler.__file__).resolve().parent
OWN_NAME = "bundler"
OWN_MANIFESTS = "_manifests"
"""The package's folder that a wheel of bundler brings the checkout's ``manifests`` in."""
ONLINE_ONLY = frozenset({"conda-pack", "httpx2", "huggingface-hub", "modelscope", "modelscope-hub"})
"""What bundler needs to pack, and not to unpack, install or serve."""
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The oldest time that a zip file can state."""
MADE_BY_INSTALLERS = frozenset(
    {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_build.json", "uv_cache.json"}
)
"""Files of a ``.dist-info`` that an installer writes; a wheel has none but ``RECORD``, which is made anew."""
OWN_WHEEL = "Wheel-Version: 1.0\nGenerator: bundler\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


@dataclass
class _Wheel:
    """A wheel's parts, before it is written."""

    name: str
    version: str
    files: dict[str, tuple[bytes, bool]] = field(default_factory=dict)
    """Content and whether it can be run, by path in the wheel."""

    @property
    def stem(self) -> str:
        """``name-version`` as file names have it."""
        return f"{re.sub(r'[-_.]+', '_', self.name)}-{self.version}"

    def write(self, folder: Path) -> Path:
        """Write the wheel into a folder."""
        info = next(path.split("/")[0] for path in self.files if path.endswith(".dist-info/WHEEL"))
        tags = re.findall(r"^Tag: *(\S+)-(\S+)-(\S+)", self.files[f"{info}/WHEEL"][0].decode(), re.MULTILINE)
        tag = "-".join(".".join(dict.fromkeys(parts)) for parts in zip(*tags, strict=True))
        record = "".join(
            f"{_quoted(path)},sha256={_digest(data)},{len(data)}\n"
            for path, (data, _) in sorted(self.files.items())
        )
        record_path = f"{info}/RECORD"
        members = self.files | {record_path: (f"{record}{record_path},,\n".encode(), False)}
        target = folder / f"{self.stem}-{tag}.whl"
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
            # The metadata goes last, as the wheel's specification asks for.
            for path in sorted(members, key=lambda path: (path.startswith(info), path)):
                data, executable = members[path]
                member = zipfile.ZipInfo(path, EPOCH)
                member.external_attr = (0o100755 if executable else 0o100644) << 16
                member.create_system = 3
                archive.writestr(member, data)
        return target


def _quoted(path: str) -> str:
    return f'"{path}"' if "," in path else path


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def own_wheel(folder: Path) -> Path:
    """Write a wheel of the bundler that runs, from a checkout or an installed wheel alike.

    A checkout needn't be installed: ``python -m bundler`` in it will do.

    :param folder: where to write it.
    :raises InputError: bundler is neither installed nor a checkout.
    """
    project = _checkout()
    if project is None:
        return repack(_installed(OWN_NAME), folder)
    wheel = _Wheel(OWN_NAME, bundler.__version__)
    for path, inside in _source_files(PACKAGE):
        wheel.files[f"{OWN_NAME}/{inside}"] = (path.read_bytes(), False)
    for path, inside in _source_files(PACKAGE.parent / "manifests"):
        wheel.files[f"{OWN_NAME}/{OWN_MANIFESTS}/{inside}"] = (path.read_bytes(), False)
    info = f"{wheel.stem}.dist-info"
    stated = ["Metadata-Version: 2.1", f"Name: {OWN_NAME}", f"Version: {wheel.version}"]
    stated += [f"Requires-Python: {project['requires-python']}"]
    stated += [f"Requires-Dist: {requirement}" for requirement in project["dependencies"]]
    points = [f"{name} = {target}" for name, target in sorted(project["scripts"].items())]
    for name, lines in (("METADATA", stated), ("entry_points.txt", ["[console_scripts]", *points])):
        wheel.files[f"{info}/{name}"] = ("\n".join([*lines, ""]).encode(), False)
    wheel.files[f"{info}/WHEEL"] = (OWN_WHEEL.encode(), False)
    return wheel.write(folder)


def _checkout() -> dict[str, Any] | None:
    """Return ``[project]`` of the checkout that bundler runs from, or ``None`` where it is installed."""
    try:
        project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text("utf-8")).get("project", {})
    except (OSError, ValueError):
        return None
    return project if isinstance(project, dict) and project.get("name") == OWN_NAME else None


def _source_files(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield a source folder's files, without what Python and editors leave there."""
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        hidden = any(part.startswith(".") or part == "__pycache__" for part in inside.parts)
        if path.is_file() and not hidden and not inside.name.endswith((".pyc", "~", ".orig", ".rej")):
            yield path, inside.as_posix()


def requirements() -> list[Distribution]:
    """Return the installed distributions that bundler needs on an air-gapped host, itself not among them.

    :returns: by name.
    :raises InputError: one of them isn't installed.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    def wanted(texts: Sequence[str], extra: str) -> Iterator[tuple[str, str]]:
        for requirement in map(Requirement, texts):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                # An extra's requirements come in addition to those without one.
                for one in ("", *sorted(requirement.extras)):
                    yield canonicalize_name(requirement.name), one

    project = _checkout()
    own = project["dependencies"] if project else _installed(OWN_NAME).requires or ()
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    pending = list(wanted(own, ""))
    while pending:
        name, extra = one = pending.pop()
        if one not in seen and name not in ONLINE_ONLY:
            seen.add(one)
            found.setdefault(name, _installed(name))
            pending += wanted(found[name].requires or (), extra)
    return [found[name] for name in sorted(found)]


def _installed(name: str) -> Distribution:
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError as problem:
        raise InputError(
            f"{name} is not installed in the interpreter that runs bundler, so it can't travel",
            where=sys.prefix,
            hint="install bundler with its requirements: pip install -e .",
        ) from problem


def repack(distribution: Distribution, folder: Path) -> Path:
    """Write a wheel of an installed distribution.

    :param folder: where to write it.
    :raises InputError: it is installed in a way that keeps no list of its files, or is editable.
    :raises DamagedError: a file isn't what was installed.
    """
    label = f"{distribution.name} {distribution.version}"
    url = json.loads(distribution.read_text("direct_url.json") or "{}")
    if distribution.files is None or url.get("dir_info", {}).get("editable"):
        raise InputError(
            f"{label} can't travel: it is installed editable, or without a list of its files",
            where=distribution.locate_file(""),
            hint=f"install it from a wheel: pip install {distribution.name}",
        )
    wheel = _Wheel(distribution.name, distribution.version)
    scripts = {point.name for point in distribution.entry_points if point.group in _SCRIPT_GROUPS}
    for listed in distribution.files:
        place = _place(listed, wheel.stem, scripts)
        if place is not None:
            path = Path(str(distribution.locate_file(listed)))
            wheel.files[place] = (_checked(path, listed, label), bool(path.stat().st_mode & 0o100))
    return wheel.write(folder)


_SCRIPT_GROUPS = ("console_scripts", "gui_scripts")


def _place(listed: PackagePath, stem: str, scripts: set[str]) -> str | None:
    """Return a file's path in the wheel, or ``None`` for what the installer makes."""
    path = PurePosixPath(listed.as_posix())
    if path.suffix == ".pyc" or "__pycache__" in path.parts:
        return None
    if path.parts[0].endswith(".dist-info") and path.name in MADE_BY_INSTALLERS and len(path.parts) == 2:
        return None
    inside = [part for part in path.parts if part != ".."]
    if len(inside) == len(path.parts):
        return str(path)
    if inside[0] == "bin":
        return None if path.name in scripts else f"{stem}.data/scripts/{'/'.join(inside[1:])}"
    return f"{stem}.data/data/{'/'.join(inside)}"


def _checked(path: Path, listed: PackagePath, label: str) -> bytes:
    """Read a file that must still be what was installed; a script gets its portable first line back."""
    try:
        data = path.read_bytes()
    except OSError as problem:
        raise DamagedError(
            f"a file of {label} is missing: {problem.strerror}", where=path, hint="install it again"
        ) from problem
    if listed.hash and listed.hash.mode == "sha256" and _digest(data) != listed.hash.value:
        raise DamagedError(
            f"a file of {label} was changed after its install", where=path, hint="install it again"
        )
    bin_folder = Path(sys.prefix, "bin")
    if path.resolve().parent == bin_folder.resolve():
        interpreter = re.escape(str(bin_folder).encode()) + rb"/python[\d.]*"
        return re.sub(rb"\A#! *" + interpreter + rb"(?=[ \n])", b"#!python", data)
    return data
