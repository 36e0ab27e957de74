"""What an installation's own bundler offers: what can be done there, and where the rest can."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bundler.cli.main import COMMANDS, MODULES, ONLINE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Bundler

NEED_A_WORKSPACE = ("plan", "fetch", "pack", "rehearse", "clean", "env")


def listed(text: str) -> set[str]:
    """Return the commands that a help lists, each with what it does."""
    lines = [line for line in text.splitlines() if line.startswith("  ") and line[2:3].isalpha()]
    return {name for name in MODULES if any(line.split()[0] == name for line in lines)}


def test_help_lists_what_can_be_done_here(bundler: Bundler, tmp_path: Path) -> None:
    assert listed(bundler("--help").stdout) == set(MODULES)
    there = bundler("--help", BUNDLER_INSTALLATION=str(tmp_path)).stdout
    assert listed(there) == set(MODULES) - set(COMMANDS[ONLINE])
    assert "Online host only, not here:\n  plan, fetch, pack, rehearse, models, env, clean\n" in there


@pytest.mark.parametrize("command", NEED_A_WORKSPACE)
def test_what_cannot_be_done_here_says_where(bundler: Bundler, tmp_path: Path, command: str) -> None:
    (tmp_path / ".bundler").mkdir()
    (tmp_path / "pixi.lock").write_text("version: 6\n")
    done = bundler(command, BUNDLER_INSTALLATION=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {command} is for the online host")
    assert f"where: {tmp_path}/bin/bundler, the bundler of an installation" in done.stderr
    assert "run it there, where pixi.toml and pixi.lock are" in done.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / ".bundler", tmp_path / "pixi.lock"]


def test_a_workspace_is_one_whoever_looks_at_it(bundler: Bundler, tmp_path: Path) -> None:
    """On an online host an installation's bundler works on a workspace beside it as any other does."""
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace" / "pixi.lock").write_text("version: 6\n")
    done = bundler("env", "-C", tmp_path / "workspace", BUNDLER_INSTALLATION=str(tmp_path / "home"))
    assert done.returncode == 0, done.stderr
    assert ".pkg-cache" in done.stdout
