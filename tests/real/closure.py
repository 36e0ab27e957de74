"""The wheels of ``feature.serve``, resolved anew and compared with what ``pixi.lock`` names."""

from __future__ import annotations

import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support.resolver import Wheel, compile_requirements, default_index

REPOSITORY = Path(__file__).resolve().parents[2]
ENVIRONMENT = "cu128"
FEATURES = ("serve", "cu128")
PYTORCH = ("torch", "torchaudio", "torchvision")
"""Locked from PyTorch's own index; PyPI's wheels of the same versions are built for CUDA 12.8 too."""
FROM_CONDA = ("ninja",)
"""What a conda package brings in the lock, and a wheel here."""


class ClosureError(Exception):
    """What was resolved is not what the lock names."""


@dataclass(frozen=True)
class Locked:
    """A wheel as ``pixi.lock`` has it."""

    name: str
    version: str
    sha256: str
    requires_dist: tuple[str, ...]
    requires_python: str | None

    @property
    def public_version(self) -> str:
        """The version without its local part: ``2.9.1`` of ``2.9.1+cu128``."""
        return self.version.partition("+")[0]


def locked_wheels(lock: Path, environment: str = ENVIRONMENT) -> dict[str, Locked]:
    """Return the wheels of an environment of ``pixi.lock``, by name."""
    document: dict[str, Any] = yaml.safe_load(lock.read_text())
    entries = {entry["pypi"]: entry for entry in document["packages"] if "pypi" in entry}
    named = document["environments"][environment]["packages"]["linux-64"]
    found = [entries[one["pypi"]] for one in named if "pypi" in one]
    return {
        entry["name"]: Locked(
            name=entry["name"],
            version=entry["version"],
            sha256=entry["sha256"],
            requires_dist=tuple(entry.get("requires_dist", ())),
            requires_python=entry.get("requires_python"),
        )
        for entry in found
    }


def requirements(manifest: Path) -> tuple[list[str], list[str]]:
    """Return what ``pixi.toml`` asks of PyPI, and its overrides; a local version is cut."""
    features = tomllib.loads(manifest.read_text())["feature"]
    asked, overrides = [], []
    for feature in FEATURES:
        for name, wish in features[feature].get("pypi-dependencies", {}).items():
            asked.append(name + _specifier(wish))
        stated = features[feature].get("pypi-options", {}).get("dependency-overrides", {})
        overrides += [name + _specifier(wish) for name, wish in stated.items()]
    return asked, overrides


def _specifier(wish: str | dict[str, str]) -> str:
    version = wish if isinstance(wish, str) else wish["version"]
    return "" if version == "*" else version.partition("+")[0]


def resolve_closure(python_version: str, repository: Path = REPOSITORY) -> list[Wheel]:
    """Resolve what the workspace asks for, at the lock's versions, from the configured index.

    :param python_version: ``3.12.1``: the interpreter they are for.
    :raises ClosureError: other packages or other bytes than the lock's.
    :raises RuntimeError: uv found no solution or no index.
    """
    locked = locked_wheels(repository / "pixi.lock")
    asked, overrides = requirements(repository / "pixi.toml")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "constraints.txt").write_text(
            "".join(f"{one.name}=={one.public_version}\n" for one in locked.values())
        )
        (folder / "overrides.txt").write_text("".join(f"{line}\n" for line in overrides))
        result = folder / "pylock.toml"
        files = ("--constraint", folder / "constraints.txt", "--override", folder / "overrides.txt")
        written = ("--format", "pylock.toml", "--output-file", result)
        compile_requirements(asked, python_version, *map(str, files + written))
        packages = tomllib.loads(result.read_text())["packages"]
    check_names({package["name"] for package in packages}, set(locked))
    index = default_index(python_version)
    return [_wheel(package, locked.get(package["name"]), index) for package in packages]


def check_names(found: set[str], locked: set[str]) -> None:
    """Compare the names of what was resolved with the lock's.

    :raises ClosureError: they differ.
    """
    missing, more = sorted(locked - found), sorted(found - locked - set(FROM_CONDA))
    if missing or more:
        raise ClosureError(f"not in what was resolved: {missing}; not in pixi.lock: {more}")


def _wheel(package: dict[str, Any], locked: Locked | None, index: str) -> Wheel:
    file = _same_file(package, locked)
    return Wheel(
        name=package["name"],
        version=package["version"],
        url=file["url"],
        sha256=file["hashes"]["sha256"],
        size=file.get("size"),
        index=package.get("index", index),
        requires_dist=locked.requires_dist if locked else (),
        requires_python=locked.requires_python if locked else None,
    )


def _same_file(package: dict[str, Any], locked: Locked | None) -> dict[str, Any]:
    """Return the file of a package that the lock names; of those the lock has from elsewhere, the first.

    :raises ClosureError: the index has no such file.
    """
    name, files = package["name"], package["wheels"]
    if locked is None or name in PYTORCH:
        return dict(files[0])
    for file in files:
        if file["hashes"]["sha256"] == locked.sha256:
            return dict(file)
    raise ClosureError(f"{name} {package['version']}: none of the index's wheels has the lock's sha256")
