"""plan, fetch and env as a user calls them, in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.collect.conftest import content, sha

if TYPE_CHECKING:
    from tests.support.fileserver import FileServer

PROJECT = Path(__file__).resolve().parent.parent.parent


def bundler(*words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bundler", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=60,
    )


@pytest.fixture
def workspace(server: FileServer, tmp_path: Path) -> Path:
    """Return a workspace whose lock names files of the server."""
    root = tmp_path / "a workspace"
    root.mkdir()
    (root / "pixi.toml").write_text(
        '[workspace]\nname = "t"\nchannels = []\nplatforms = ["linux-64"]\n'
        '[feature.one]\n[feature.own]\n[environments]\ndefault = ["one"]\nbundler = ["own"]\n'
    )
    entries, selectors = "", {"default": "", "bundler": ""}
    for number, environment in enumerate(["default", "default", "bundler"]):
        data = content(5000 + number, seed=number)
        name = f"p{number}-1-py3-none-any.whl"
        (server.folder / name).write_bytes(data)
        selectors[environment] += f"      - pypi: {server.url}{name}\n"
        entries += f"- pypi: {server.url}{name}\n  name: p{number}\n  version: '1'\n  sha256: {sha(data)}\n"
    environments = "".join(
        f"  {name}:\n    channels: []\n    packages:\n      linux-64:\n{lines}"
        for name, lines in selectors.items()
    )
    (root / "pixi.lock").write_text(
        f"version: 7\nplatforms:\n- name: linux-64\nenvironments:\n{environments}packages:\n{entries}"
    )
    return root


def test_plan_then_fetch_then_plan(workspace: Path) -> None:
    first = json.loads(bundler("plan", "--json", "--env", "one", "-C", workspace).stdout)
    assert (first["files"], first["missing_files"], first["missing_size"]) == (3, 3, 15003)
    fetched = bundler("fetch", "--env", "one", "-C", workspace)
    assert fetched.returncode == 0, fetched.stderr
    assert "default, bundler: 3 files fetched" in fetched.stdout
    second = bundler("plan", cwd=workspace)
    assert "nothing, all is here" in second.stdout and "choose with --env" in second.stderr
    assert second.stdout.startswith("The target must have:")
    assert "all 3 files were here" in bundler("fetch", cwd=workspace).stdout


def test_offline_plans_ask_nobody(workspace: Path, server: FileServer) -> None:
    plan = json.loads(bundler("plan", "--offline", "--json", cwd=workspace).stdout)
    assert plan["unknown_sizes"] == 3 and server.requests == []


def test_unknown_environment(workspace: Path) -> None:
    for command in ("plan", "fetch"):
        ended = bundler(command, "--env", "cu999", "-C", workspace)
        assert ended.returncode == 3
        assert "there are: default (one), bundler (own)" in ended.stderr
        assert "Traceback" not in ended.stderr


def test_no_workspace(tmp_path: Path) -> None:
    ended = bundler("plan", cwd=tmp_path)
    assert ended.returncode == 3 and "not a workspace" in ended.stderr


def test_packages_that_cannot_be_carried(workspace: Path, server: FileServer) -> None:
    lock = workspace / "pixi.lock"
    lock.write_text(
        "\n".join(
            line for line in lock.read_text().splitlines() if "sha256: " + sha(content(5000)) not in line
        )
    )
    ended = bundler("fetch", "-C", workspace)
    assert ended.returncode == 3 and "p0-1: has no sha256" in ended.stderr and server.requests == []
    assert bundler("fetch", "--allow-unhashed", "-C", workspace).returncode == 0


def test_env_is_for_eval(workspace: Path) -> None:
    script = (
        f'eval "$({sys.executable} -m bundler env)" && printf "%s\\n" "$PIXI_CACHE_DIR" "$XDG_CACHE_HOME"'
    )
    ended = subprocess.run(
        ["sh", "-c", script],
        cwd=workspace,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        check=True,
    )
    assert ended.stdout.splitlines() == [f"{workspace}/.pkg-cache/pixi", f"{workspace}/.pkg-cache/xdg"]
    assert (workspace / ".pkg-cache/conda/rattler").is_dir()


def test_the_real_plan_lists_everything() -> None:
    ended = bundler("plan", "--offline", "--list", "--env", "cu126", "-C", PROJECT)
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert sum(line.startswith("  conda ") for line in lines) == 60 + 25
    assert sum(line.startswith("  wheel ") for line in lines) == 162 + 38


def test_a_model_alone_needs_no_workspace(tiny_model: Path, tmp_path: Path) -> None:
    plan = json.loads(bundler("plan", "--model", tiny_model, "--json", cwd=tmp_path).stdout)
    size = sum(path.stat().st_size for path in tiny_model.rglob("*") if path.is_file())
    assert plan["environments"] == [] and plan["models"][0]["size"] == size
    assert any("GPU" in line for line in plan["target"])


def test_a_hub_out_of_reach_does_not_hide_the_rest_of_the_plan(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    words = ("plan", "--model", "hf:owner/far", "--env", "one", "-C", workspace)
    ended = bundler(*words)
    assert ended.returncode == 4, ended.stderr
    assert "environment default (one): " in ended.stdout
    assert "model far: NOT COUNTED" in ended.stdout
    assert "127.0.0.1" in ended.stderr
    assert json.loads(bundler(*words, "--json").stdout)["missing_files"] == 3


def test_a_model_and_an_environment(tiny_model: Path, workspace: Path) -> None:
    text = bundler("plan", "--model", tiny_model, "--env", "default", "-C", workspace).stdout
    assert text.index("GPU") < text.index("environment default"), "it leads with what the target must have"
    assert f"model {tiny_model.name}: " in text and "all here" in text
    fetched = bundler("fetch", "--model", tiny_model, "--env", "default", "-C", workspace)
    assert fetched.returncode == 0, fetched.stderr
    assert "3 files fetched" in fetched.stdout and f"{tiny_model.name}: " in fetched.stdout
