"""Wheels as the real resolver finds them: addresses, sizes and hashes are the index's own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

PLATFORM = "x86_64-manylinux_2_28"
"""What pixi takes a ``linux-64`` host for when the workspace says no more."""


@dataclass(frozen=True)
class Wheel:
    """A wheel as a lock needs it."""

    name: str
    version: str
    url: str
    sha256: str
    size: int | None
    index: str
    """The index page it came from."""
    requires_dist: tuple[str, ...]
    requires_python: str | None


def resolve(requirements: Sequence[str], python_version: str, interpreter: Path | None = None) -> list[Wheel]:
    """Resolve requirements to wheels, in the order of their names.

    :param python_version: ``3.11.7``: the interpreter they are for.
    :param interpreter: one of that version; ``None``: the one that runs.
    :raises RuntimeError: uv found no solution or no index; its own words are in the message.
    """
    with tempfile.TemporaryDirectory() as scratch:
        lock = Path(scratch) / "pylock.toml"
        compile_requirements(
            requirements, python_version, "--format", "pylock.toml", "--output-file", str(lock)
        )
        metadata = _metadata(lock, Path(scratch) / "target", python_version, interpreter)
        packages = tomllib.loads(lock.read_text())["packages"]
    index = default_index(python_version)
    return [_wheel(package, metadata[package["name"]], index) for package in packages]


def default_index(python_version: str) -> str:
    """Return the address of the index that uv asks where nobody names another."""
    answer = compile_requirements(["pip"], python_version, "--emit-index-url", "--no-annotate", "--no-header")
    line = next(line for line in answer.splitlines() if line.startswith("--index-url "))
    return line.removeprefix("--index-url ").strip()


def _wheel(package: dict[str, Any], headers: Any, index: str) -> Wheel:
    file = package["wheels"][0]
    return Wheel(
        name=package["name"],
        version=package["version"],
        url=file["url"],
        sha256=file["hashes"]["sha256"],
        size=file.get("size"),
        index=package.get("index", index),
        requires_dist=tuple(headers.get_all("Requires-Dist", ())),
        requires_python=headers.get("Requires-Python"),
    )


def compile_requirements(requirements: Sequence[str], python_version: str, *words: str) -> str:
    """Have uv resolve requirements to wheels, with more words of ``uv pip compile``; return what it prints.

    :raises RuntimeError: it found no solution or no index.
    """
    target = ["--python-platform", PLATFORM, "--python-version", python_version]
    run = ["pip", "compile", "-", "--quiet", "--only-binary", ":all:", *target, *words]
    return _uv(run, "\n".join(requirements))


def _metadata(lock: Path, target: Path, python_version: str, interpreter: Path | None) -> dict[str, Any]:
    """Install the wheels into a scratch folder and read what they say of themselves."""
    python = str(interpreter or sys.executable)
    host = ["--python", python, "--python-platform", PLATFORM, "--python-version", python_version]
    run = ["pip", "install", "--quiet", "--no-deps", "--preview-features", "pylock", *host]
    _uv([*run, "--target", str(target), "-r", str(lock)])
    found = {}
    for path in sorted(target.glob("*.dist-info/METADATA")):
        headers = HeaderParser().parsestr(path.read_text("utf-8"))
        found[headers["Name"].lower().replace("_", "-").replace(".", "-")] = headers
    return found


def _uv(words: list[str], text: str = "") -> str:
    from uv import find_uv_bin

    answer = subprocess.run(
        [find_uv_bin(), *words],
        input=text,
        capture_output=True,
        text=True,
        env=_environment(),
        check=False,
    )
    if answer.returncode:
        raise RuntimeError(f"uv {' '.join(words[:2])} failed:\n{answer.stderr}")
    return answer.stdout


def _environment() -> dict[str, str]:
    """Let pip's choice of an index hold for uv where uv has none of its own."""
    environment = dict(os.environ)
    index = environment.get("PIP_INDEX_URL")
    if index and not {"UV_DEFAULT_INDEX", "UV_INDEX_URL"} & environment.keys():
        environment["UV_DEFAULT_INDEX"] = index
    return environment
