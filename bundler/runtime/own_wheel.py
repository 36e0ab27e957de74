"""bundler's own wheel, made of the package that runs, without a network or a build tool.

The same files give the same bytes, whether bundler is installed or runs from a checkout.
"""

from __future__ import annotations

import importlib.metadata
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli

import bundler
from bundler.errors import DamagedError, InputError
from bundler.wheel_record import digest_of

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(bundler.__file__).resolve().parent
NAME = "bundler"
SHIPPED = {
    "manifests": "_manifests",
    "pixi.toml": "_workspace/pixi.toml",
    "pixi.lock": "_workspace/pixi.lock",
}
"""What of a checkout lies outside of the package, and where a wheel of bundler brings it in it."""
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The oldest time that a zip file can state."""
TAGS = "Wheel-Version: 1.0\nGenerator: bundler\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def own_wheel(folder: Path) -> Path:
    """Write a wheel of the bundler that runs.

    :param folder: where to write it.
    :raises InputError: bundler is neither installed nor a checkout.
    :raises DamagedError: a file of it isn't what was installed.
    """
    project = _checkout()
    files, about = _of_checkout(project) if project else _of_installed()
    info = f"{NAME}-{bundler.__version__}.dist-info"
    members = {f"{NAME}/{path}": data for path, data in files.items()}
    members |= {f"{info}/{name}": data for name, data in (about | {"WHEEL": TAGS.encode()}).items()}
    rows = "".join(f"{path},{digest_of(data)},{len(data)}\n" for path, data in sorted(members.items()))
    members[f"{info}/RECORD"] = f"{rows}{info}/RECORD,,\n".encode()
    target = folder / f"{NAME}-{bundler.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        # The metadata goes last, as the wheel's specification asks for.
        for path in sorted(members, key=lambda path: (path.startswith(info), path)):
            member = zipfile.ZipInfo(path, EPOCH)
            member.external_attr = 0o100644 << 16
            member.create_system = 3
            archive.writestr(member, members[path])
    return target


def _checkout() -> dict[str, Any] | None:
    """Return ``[project]`` of the checkout that bundler runs from, or ``None`` where it is installed."""
    try:
        project = tomli.loads((PACKAGE.parent / "pyproject.toml").read_text("utf-8")).get("project", {})
    except (OSError, ValueError):
        return None
    return project if isinstance(project, dict) and project.get("name") == NAME else None


def _of_checkout(project: dict[str, Any]) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Return the package's files and the wheel's metadata; a checkout needn't be installed."""
    files = dict(_source_files(PACKAGE))
    for outside, inside in SHIPPED.items():
        place = PACKAGE.parent / outside
        found = _source_files(place) if place.is_dir() else [("", place.read_bytes())]
        files |= {f"{inside}/{path}".rstrip("/"): data for path, data in found}
    stated = ["Metadata-Version: 2.4", f"Name: {NAME}", f"Version: {bundler.__version__}"]
    stated += [f"License-Expression: {project['license']}"]
    stated += [f"License-File: {name}" for name in project["license-files"]]
    stated += [f"Requires-Python: {project['requires-python']}"]
    stated += [f"Requires-Dist: {requirement}" for requirement in project["dependencies"]]
    points = [f"{name} = {target}" for name, target in sorted(project["scripts"].items())]
    texts = {"METADATA": stated, "entry_points.txt": ["[console_scripts]", *points]}
    about = {name: "\n".join([*lines, ""]).encode() for name, lines in texts.items()}
    for name in project["license-files"]:
        about[f"licenses/{name}"] = (PACKAGE.parent / name).read_bytes()
    return files, about


def _source_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield a source folder's files, without what Python and editors leave there."""
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        hidden = any(part.startswith(".") or part == "__pycache__" for part in inside.parts)
        if path.is_file() and not hidden and not inside.name.endswith((".pyc", "~", ".orig", ".rej")):
            yield inside.as_posix(), path.read_bytes()


def _of_installed() -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Return the installed package's files and metadata, each as it was installed."""
    try:
        installed = importlib.metadata.distribution(NAME)
    except importlib.metadata.PackageNotFoundError as problem:
        raise InputError(
            "bundler isn't installed in the interpreter that runs it, so it can't travel",
            where=PACKAGE,
            hint="install it, or run it from its repository",
        ) from problem
    files, about = dict(_source_files(PACKAGE)), {}
    for listed in installed.files or ():
        top, _, path = listed.as_posix().partition("/")
        data = files.get(path) if top == NAME else None
        if top.endswith(".dist-info") and (path in ("METADATA", "entry_points.txt") or "licenses/" in path):
            data = about[path] = Path(str(listed.locate())).read_bytes()
        elif top != NAME or path.endswith(".pyc"):
            continue
        if data is None or (listed.hash and digest_of(data) != f"{listed.hash.mode}={listed.hash.value}"):
            raise DamagedError(
                "a file of bundler is missing, or was changed after its install",
                where=listed.locate(),
                hint="install bundler again",
            )
    return files, about
