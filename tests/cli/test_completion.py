"""Completion by the shells themselves: what Tab offers."""

from __future__ import annotations

import os
import pty
import shlex
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from bundler.cli.main import MODULES
from tests.cli.conftest import PROJECT
from tests.serve.conftest import make_installation
from tests.support.terminal import read_to_end

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here (a Debian package: bash)")


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    """Return an environment with a command bundler on its PATH."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "bundler"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m bundler "$@"\n')
    program.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BUNDLER_")}
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    return {**kept, "PATH": path, "PYTHONPATH": str(PROJECT), "PS1": "> ", "TERM": "dumb"}


def offered(variables: dict[str, str], folder: Path, *words: str) -> list[str]:
    """Return what bash would offer for the last word."""
    line = " ".join(map(shlex.quote, words))
    script = f"""
    eval "$(bundler completion bash)"
    COMP_WORDS=({line}) COMP_CWORD={len(words) - 1}
    _bundler_completion bundler
    printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_commands_and_options(variables: dict[str, str], tmp_path: Path) -> None:
    assert offered(variables, tmp_path, "bundler", "") == list(MODULES)
    assert offered(variables, tmp_path, "bundler", "un") == ["unpack", "uninstall"]
    assert offered(variables, tmp_path, "bundler", "--v") == ["--version"]
    assert offered(variables, tmp_path, "bundler", "pack", "--pari") == ["--parity"]
    assert offered(variables, tmp_path, "bundler", "pack", "--installer", "") == ["auto", "pixi", "native"]


def test_what_can_be_packed(variables: dict[str, str], tmp_path: Path) -> None:
    assert offered(variables, PROJECT, "bundler", "pack", "--env", "cu") == ["cu126", "cu128"]
    assert offered(variables, PROJECT, "bundler", "rehearse", "-e", "d") == ["default"]
    words = ("bundler", "plan", "-C", str(PROJECT), "--env", "cu128", "--env", "cu12")
    assert offered(variables, tmp_path, *words) == ["cu126", "cu128"]
    assert offered(variables, tmp_path, "bundler", "plan", "--env", "") == [], (
        "no workspace, and no complaint"
    )
    assert offered(variables, tmp_path, "bundler", "fetch", "--model", "GLM") == ["GLM-4.7", "GLM-4.7-FP8"]


def test_what_is_installed(variables: dict[str, str], tmp_path: Path) -> None:
    make_installation(tmp_path / "glm")
    for command in ("serve", "doctor", "smoke", "systemd", "check"):
        assert offered(variables, tmp_path / "glm", "bundler", command, "--model", "t") == ["tiny"]
    assert offered(variables, tmp_path, "bundler", "serve", "-C", "glm", "--model", "T") == ["Tiny"]
    assert offered(variables, tmp_path, "bundler", "remove", "-C", "glm", "T") == ["Tiny"]
    assert offered(variables, tmp_path / "bin", "bundler", "serve", "--model", "") == []


def test_a_key_press(variables: dict[str, str], tmp_path: Path) -> None:
    """In a terminal, by readline: the word is made whole, and the command runs."""
    begun = 'eval "$(bundler completion bash)"\nbundler completion z\t\nexit\n'
    (tmp_path / "glm.toml").touch()
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"],
        cwd=tmp_path,
        env=variables,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
    )
    os.close(follower)
    os.write(leader, begun.encode())
    seen = read_to_end(leader)
    os.close(leader)
    assert process.wait(30) == 0
    assert b"bundler completion zsh" in seen and b"#compdef bundler" in seen


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_can_read_it(variables: dict[str, str], tmp_path: Path, shell: str) -> None:
    script = subprocess.run(
        ["bundler", "completion", shell], env=variables, capture_output=True, text=True, check=True
    ).stdout
    assert f"_BUNDLER_COMPLETE={shell}_complete" in script
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell} here (a Debian package: {shell})")
    subprocess.run([program, "-n"], input=script, text=True, check=True)
