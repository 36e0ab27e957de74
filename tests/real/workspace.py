"""The workspace: the real wheels, and conda packages made of this machine's Python and libnuma.

conda-forge's own packages of the lock, compilers among them, stay out: a host that serves from it brings a C
compiler itself.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.real.closure import ENVIRONMENT, REPOSITORY, requirements, resolve_closure
from tests.support.condapkg import CondaPackage, PackageFile, Recipe, write_package, write_python
from tests.support.resolver import resolve
from tests.support.workspace import RUNTIME, DemoWorkspace, EnvironmentWish, write_workspace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.resolver import Wheel

PYTHON = "3.12"
"""The wheels of the lock are for CPython 3.12."""
NUMA = "libnuma.so.1"
"""What sgl_kernel is linked with and no wheel brings."""


class MissingPartError(Exception):
    """This machine lacks something that the workspace is made of."""


def find_python(named: str | None = None) -> Path:
    """Return an interpreter of the lock's version: the one named, on PATH, of pyenv or of uv.

    :raises MissingPartError: there is none.
    """
    pyenv = sorted(Path.home().glob(f".pyenv/versions/{PYTHON}.*/bin/python{PYTHON}"))
    of_uv = sorted(Path.home().glob(f".local/share/uv/python/cpython-{PYTHON}.*/bin/python{PYTHON}"))
    on_path = shutil.which(f"python{PYTHON}")
    candidates = [Path(named)] if named else [*pyenv, *of_uv, *([Path(on_path)] if on_path else [])]
    for one in candidates:
        words = [str(one), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        done = subprocess.run(words, capture_output=True, text=True, check=False) if one.exists() else None
        if done and done.stdout.strip() == PYTHON:
            return one
    raise MissingPartError(f"the wheels are for Python {PYTHON}, which isn't here: name one with --python")


def make_real_workspace(folder: Path, executable: Path) -> DemoWorkspace:
    """Make channel and workspace below a folder: environments ``cu128`` and bundler's own.

    :param executable: a Python 3.12 of this machine, which becomes the conda package.
    :raises ClosureError: the index gives other wheels than the lock names.
    :raises MissingPartError: libnuma isn't on this machine.
    """
    packages = make_channel(folder / "channel", executable)
    version = packages["python"].version
    wheels = {
        ENVIRONMENT: tuple(resolve_closure(version)),
        RUNTIME.name: tuple(resolve(RUNTIME.wheels, version, executable)),
    }
    return write_locked(folder, packages, wheels)


def write_locked(
    folder: Path, packages: dict[str, CondaPackage], wheels: dict[str, tuple[Wheel, ...]]
) -> DemoWorkspace:
    """Write pixi.toml and pixi.lock for these packages and wheels."""
    asked, _ = requirements(REPOSITORY / "pixi.toml")
    serving = EnvironmentWish(ENVIRONMENT, "serve", conda=("libnuma", "python"), wheels=tuple(asked))
    made = DemoWorkspace(folder / "workspace", folder / "channel", packages, (serving, RUNTIME), wheels)
    write_workspace(made)
    return made


def make_channel(folder: Path, executable: Path) -> dict[str, CondaPackage]:
    """Write the conda packages and index them."""
    from rattler.index import index_fs

    packages = [write_python(folder, executable), write_package(folder, _numa())]
    (folder / "noarch").mkdir(exist_ok=True)
    asyncio.run(index_fs(folder, write_zst=False, write_shards=False, force=True))
    return {package.name: package for package in packages}


def _numa() -> Recipe:
    library = _library(NUMA)
    files = {f"lib/{NUMA}": PackageFile(library.read_bytes(), executable=True)}
    return Recipe(name="libnuma", version="2.0", license="LGPL-2.1-only", files=files)


def _library(name: str, folders: Sequence[str] = ("/usr/lib/x86_64-linux-gnu", "/usr/lib64")) -> Path:
    for folder in folders:
        path = Path(folder, name)
        if path.exists():
            return path.resolve()
    raise MissingPartError(f"{name} isn't in {' or '.join(folders)}: install your distribution's libnuma")
