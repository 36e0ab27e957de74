"""Workspaces without a plain pixi.toml, the whole way: packed, unpacked, installed, served from."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

import pytest

from bundler.installation import Installation
from tests.cli.conftest import run_bundler
from tests.support.workspace import in_toml_11, to_pyproject

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MadeWorkspace


@pytest.mark.parametrize("name", ["pixi.toml", "pyproject.toml"])
def test_from_pack_to_the_launch_command(
    filled_workspace: MadeWorkspace, tiny_model: Path, tmp_path: Path, name: str
) -> None:
    root = filled_workspace.root
    if name == "pyproject.toml":
        to_pyproject(root)
    else:
        (root / name).write_text(in_toml_11((root / name).read_text()))
    text = (root / name).read_text()
    with pytest.raises(tomllib.TOMLDecodeError):
        tomllib.loads(text)
    natively = ("--installer", "native")
    words = ("pack", "-C", root, "--env", "extra", "--model", tiny_model, *natively, "-o", tmp_path)
    done = run_bundler(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "rehearsal: passed" in done.stdout
    place = tmp_path / "installed"
    done = run_bundler("unpack", tmp_path / "tiny-glm4-moe-extra", place, *natively, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (place / name).read_text() == text
    assert [one.name for one in Installation(place).receipt.environments] == ["extra"]
    done = run_bundler("serve", "--dry-run", "-C", place, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{place}/.pixi/envs/extra/bin/python" in done.stdout and "sglang.launch_server" in done.stdout
    beside = run_bundler(
        "serve", "--dry-run", "-C", root, "--env", "extra", "--model", tiny_model, cwd=tmp_path
    )
    assert f"pixi run --frozen --manifest-path {root / name} --environment extra" in beside.stdout
