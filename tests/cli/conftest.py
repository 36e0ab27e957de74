"""The commands as a user runs them, on one bundle that is packed once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import shared

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.workspace import DemoWorkspace

    Bundler = Callable[..., subprocess.CompletedProcess[str]]

PROJECT = Path(__file__).resolve().parents[2]


def run_bundler(
    *words: object, cwd: Path | None = None, prefix: tuple[str, ...] = (), **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run the command as a process of its own and return what it said."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("BUNDLER_")}
    environment |= {"PYTHONPATH": str(PROJECT), "NO_COLOR": "1", **variables}
    return subprocess.run(
        [*prefix, sys.executable, "-m", "bundler", *map(str, words)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture
def bundler(tmp_path: Path) -> Bundler:
    """Return the command, run in an empty folder unless told otherwise."""

    def run(*words: object, cwd: Path = tmp_path, **more: str) -> subprocess.CompletedProcess[str]:
        return run_bundler(*words, cwd=cwd, **more)

    return run


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory, demo_workspace: DemoWorkspace) -> Path:
    """Return a bundle of the demo's environment and model, in small volumes; not to be changed."""
    from tests.support.tinymodel import make_model

    def make(folder: Path) -> Path:
        model = make_model(folder / "tiny-glm4-moe")
        shutil.copytree(demo_workspace.root, folder / "workspace", symlinks=True)
        done = run_bundler(
            *("pack", "-C", folder / "workspace", "--env", "default", "--model", model),
            *("--installer", "native", "--volume-size", "10MB", "-o", folder / "bundles"),
        )
        assert done.returncode == 0, done.stderr
        (bundle,) = (folder / "bundles").iterdir()
        return bundle

    return shared(tmp_path_factory, "packed", make)


@pytest.fixture
def bundle(packed: Path, tmp_path: Path) -> Path:
    """Return a copy of the bundle that the test may change."""
    return Path(shutil.copytree(packed, tmp_path / packed.name))


@pytest.fixture(scope="session")
def newer(tmp_path_factory: pytest.TempPathFactory, packed: Path) -> Path:
    """Return a bundle like the packed one, with another shard and another pixi.toml; not to be changed."""

    def make(folder: Path) -> Path:
        model = shutil.copytree(packed.parents[1] / "tiny-glm4-moe", folder / "tiny-glm4-moe")
        workspace = shutil.copytree(packed.parents[1] / "workspace", folder / "workspace", symlinks=True)
        shard = model / "model-00001-of-00004.safetensors"
        data = bytearray(shard.read_bytes())
        data[-1] ^= 1
        shard.write_bytes(data)
        (workspace / "pixi.toml").write_text((workspace / "pixi.toml").read_text() + "# newer\n")
        done = run_bundler(
            *("pack", "-C", workspace, "--env", "default", "--model", model, "--no-rehearse"),
            *("--volume-size", "10MB", "-o", folder / "bundles", "--name", "newer"),
        )
        assert done.returncode == 0, done.stderr
        return folder / "bundles" / "newer"

    return shared(tmp_path_factory, "newer", make)
