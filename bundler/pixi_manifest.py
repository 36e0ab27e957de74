"""pixi's manifest of a workspace: ``pixi.toml``, or another file that pixi takes in its place."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import tomli

from bundler.common.broken import BROKEN_TEXT
from bundler.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PIXI, PYPROJECT, MOJO = "pixi.toml", "pyproject.toml", "mojoproject.toml"
NAMES = (PIXI, PYPROJECT, MOJO)
"""In the order in which pixi looks for them (``pixi_manifest/src/discovery.rs``)."""
_OWN_TABLE = re.compile(rb"^\s*\[+\s*tool\s*\.\s*pixi\b", re.MULTILINE)
"""What makes a ``pyproject.toml`` pixi's manifest, too."""


def find_manifest(root: Path) -> Path | None:
    """Return the manifest that pixi takes in a folder, ``None`` where it has none.

    A ``pyproject.toml`` without a table of pixi's is another tool's.
    """
    return next((path for name in NAMES if _is_pixis(path := root / name)), None)


def _is_pixis(path: Path) -> bool:
    if path.name != PYPROJECT:
        return path.is_file()
    try:
        return _OWN_TABLE.search(path.read_bytes()) is not None
    except OSError:
        return False


def read_manifest(path: Path, data: bytes | None = None) -> Mapping[str, Any]:
    """Read pixi's tables: the whole of ``pixi.toml``, and ``[tool.pixi]`` of ``pyproject.toml``.

    :param data: its bytes, where they don't lie in a file of their own.
    :raises InputError: it isn't TOML.
    """
    try:
        document = tomli.loads((path.read_bytes() if data is None else data).decode())
    except tomli.TOMLDecodeError as problem:
        raise InputError(f"{path.name} is broken TOML: {problem}", where=path) from problem
    except UnicodeDecodeError as problem:
        raise InputError(f"{path.name} is not UTF-8: {problem}", where=path) from problem
    except BROKEN_TEXT as problem:
        raise InputError(f"{path.name} can't be read as TOML: {problem}", where=path) from problem
    if path.name != PYPROJECT:
        return document
    tool = document.get("tool")
    own = tool.get("pixi") if isinstance(tool, dict) else None
    return own if isinstance(own, dict) else {}


def features_of(manifest: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return each environment that a manifest declares with its features."""
    table = manifest.get("environments", {})
    found: dict[str, tuple[str, ...]] = {"default": ("default",)}
    for name, value in table.items() if isinstance(table, dict) else ():
        features = value.get("features", []) if isinstance(value, dict) else value
        found[name] = tuple(map(str, features)) if isinstance(features, list) else ()
    return found


def aliases_of(manifest: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return each environment's own features: those that no other environment has.

    So ``cu126`` means ``default``, because only that environment is made with the feature ``cu126``.
    """
    features = features_of(manifest)
    counted = [feature for group in features.values() for feature in set(group)]
    return {
        name: tuple(one for one in group if counted.count(one) == 1 and one not in features)
        for name, group in features.items()
    }


def required_cuda(manifest: Mapping[str, Any], environment: str) -> str | None:
    """Return the CUDA version that an environment's ``[system-requirements]`` ask for.

    Locks of version 7 state it with the platform, those before it nowhere.
    """
    declared = manifest.get("environments")
    entry = declared.get(environment) if isinstance(declared, dict) else None
    alone = isinstance(entry, dict) and entry.get("no-default-feature") is True
    tables = [] if alone else [manifest]
    every = manifest.get("feature")
    names = features_of(manifest).get(environment, ())
    tables += [every[name] for name in names if isinstance(every, dict) and isinstance(every.get(name), dict)]
    asked = [table.get("system-requirements") for table in tables]
    found = [one["cuda"] for one in asked if isinstance(one, dict) and isinstance(one.get("cuda"), str)]
    return max(found, key=lambda text: [int(part) for part in re.findall(r"\d+", text)], default=None)
