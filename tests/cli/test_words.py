"""What one types by habit: near names, other tools' words, and the version."""

from __future__ import annotations

import json
import platform
import subprocess
from typing import TYPE_CHECKING

import pytest
import zstandard

import bundler as package
from bundler.cli import version

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Bundler


@pytest.mark.parametrize(
    ("words", "what", "fix"),
    [
        (("verfy",), "no such command 'verfy'", "did you mean verify?"),
        (("frobnicate",), "no such command 'frobnicate'", "bundler --help"),
        (("--frobnicate",), "no such option '--frobnicate'", "bundler --help"),
        (("pack", "--modle", "x"), "no such option '--modle'", "did you mean --model"),
        (("completion",), "missing argument '{bash|zsh|fish}'. Choose from: bash, zsh, fish", "--help"),
        (("sign",), "missing argument 'BUNDLE…'", "bundler sign --help"),
        (("rehearse",), "missing option '-e' / '--env'", "for example: bundler rehearse --env cu128; "),
        (("unpack", "--keep", "few"), "invalid value for '--keep'", "bundler unpack --help"),
        (("verify", "nowhere"), "path 'nowhere' does not exist", "check it, and that its disk is there"),
    ],
)
def test_near_names_are_named(bundler: Bundler, words: tuple[str, ...], what: str, fix: str) -> None:
    done = bundler(*words)
    assert done.returncode == 2
    first, second = done.stderr.splitlines()
    assert first.startswith(f"error: {what}")
    assert second.startswith("  fix:   ") and fix in second


@pytest.mark.parametrize("command", ["serve", "doctor", "smoke", "systemd"])
@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        (("--max-running-requests", "8"), "--max-running-requests 8"),
        (("--mem-fraction-static=0.8",), "--mem-fraction-static=0.8"),
        (("--some-later-flag", "--json"), "--some-later-flag"),
        (("--tp", "8"), "--tp 8"),
    ],
)
def test_sglangs_flags_go_after_two_dashes(
    bundler: Bundler, command: str, typed: tuple[str, ...], shown: str
) -> None:
    done = bundler(command, *typed)
    assert done.returncode == 2
    assert done.stderr.splitlines()[1] == (
        f"  fix:   SGLang's own flags go after --: bundler {command} -- {shown}"
    )


def test_bundlers_own_options_are_suggested_before_sglangs(bundler: Bundler) -> None:
    assert "did you mean --timeout" in bundler("serve", "--timeot", "5").stderr


def test_no_words_are_answered_with_help(bundler: Bundler) -> None:
    done = bundler()
    assert done.returncode == 2 and "Exit codes:" in done.stdout + done.stderr


@pytest.mark.parametrize("word", ["-V", "--version"])
def test_version(bundler: Bundler, word: str) -> None:
    lines = bundler(word).stdout.splitlines()
    assert lines[0] == f"bundler, version {package.__version__}"
    assert lines[-2] == f"Python {platform.python_version()}"
    assert lines[-1] == "libzstd " + ".".join(map(str, zstandard.ZSTD_VERSION))


def test_the_commit_of_a_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    git = ("git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@example.org")
    subprocess.run([*git, "init", "-q"], check=True)
    monkeypatch.setattr(version, "CHECKOUT", tmp_path)
    assert version.commit() is None, "nothing is committed yet"
    (tmp_path / "file").write_text("one")
    subprocess.run([*git, "add", "file"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "one"], check=True)
    known = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    assert version.commit() == known.strip()
    (tmp_path / "file").write_text("two")
    assert version.commit() == f"{known.strip()}-dirty"


@pytest.mark.parametrize(
    ("noted", "known"),
    [
        (json.dumps({"url": "https://example.org", "vcs_info": {"vcs": "git", "commit_id": "ab12"}}), "ab12"),
        (json.dumps({"url": "file:///x", "dir_info": {}}), None),
        ("[]", None),
        ("{", None),
        (None, None),
    ],
)
def test_the_commit_of_an_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, noted: str | None, known: str | None
) -> None:
    info = tmp_path / "bundler-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.4\nName: bundler\nVersion: 1\n")
    if noted is not None:
        (info / "direct_url.json").write_text(noted)
    monkeypatch.setattr(version, "CHECKOUT", tmp_path)
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    assert version.commit() == known
