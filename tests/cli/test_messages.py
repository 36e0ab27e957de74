"""What a user gets wrong ends in one message and a stable exit code."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from bundler.cli.main import MODULES
from bundler.cli.summaries import SUMMARIES
from bundler.errors import exit_codes
from tests.cli.conftest import PROJECT, run_bundler

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.cli.conftest import Bundler


def said(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """Check code and message, and that no traceback shows."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert "error: " in done.stderr.lower()
    for word in words:
        assert word in done.stderr


def test_help_lists_commands_and_exit_codes(bundler: Bundler) -> None:
    done = bundler("--help")
    assert done.returncode == 0
    for name in MODULES:
        assert re.search(rf"^  {name} ", done.stdout, re.MULTILINE)
    for code in exit_codes():
        assert re.search(rf"^  {code} ", done.stdout, re.MULTILINE)
    assert set(MODULES) == set(SUMMARIES)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_every_command_has_help(name: str) -> None:
    from click.testing import CliRunner

    from bundler.cli.main import bundler_command

    result = CliRunner().invoke(bundler_command, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage:" in result.output


def test_readme_names_every_command_and_exit_code() -> None:
    text = (PROJECT / "README.md").read_text()
    for name in MODULES:
        assert f"`{name}`" in text, name
    line = next(line for line in text.splitlines() if line.startswith("Exit codes:"))
    assert [int(code) for code in re.findall(r"(\d+) \w", line)] == list(exit_codes())


def test_readme_options_exist() -> None:
    """Every `bundler COMMAND --option` that README shows is one of the command's."""
    import importlib

    text = (PROJECT / "README.md").read_text()
    shown = re.findall(r"bundler (\w+)((?: [^\n`|#]*)?)", text)
    checked = 0
    for name, rest in shown:
        if name not in MODULES:
            continue
        command = getattr(importlib.import_module(MODULES[name]), f"{name}_command")
        known = {word for option in command.params for word in getattr(option, "opts", [])}
        for option in re.findall(r"(?<=\s)--[a-z][a-z0-9-]+", rest.split(" -- ")[0]):
            assert option in known, f"bundler {name} {option}"
            checked += 1
    assert checked > 10


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (("pack", "--env", "nope"), 3, "no environment 'nope'"),
        (("pack", "--env", "default", "--model", "GLM-4.77"), 3, "GLM-4.7"),
        (("pack", "--env", "default", "--volume-size", "many"), 2, "not a size"),
        (("pack", "--env", "default", "--name", "a/b"), 2, "can't be called"),
        (("plan", "--env", "default", "-C", "."), 3, "not a workspace"),
        (("rehearse", "--env", "default", "-C", "nowhere"), 3, "no such folder"),
    ],
)
def test_online_mistakes(
    demo_workspace: object, tmp_path: Path, words: tuple[str, ...], code: int, expected: str
) -> None:
    inside = ("-C", str(demo_workspace.root)) if "-C" not in words else ()  # type: ignore[attr-defined]
    said(run_bundler(*words, *inside, cwd=tmp_path), code, expected)


def test_nothing_here(bundler: Bundler, tmp_path: Path) -> None:
    said(bundler("unpack"), 3, "no bundle here")
    said(bundler("unpack", tmp_path / "nothing", tmp_path / "to"), 3)
    said(bundler("verify"), 3)
    said(bundler("inspect"), 3)
    said(bundler("serve"), 3)
    said(bundler("install"), 3)


def test_several_bundles_here(bundler: Bundler, bundle: Path) -> None:
    import shutil

    shutil.copytree(bundle, bundle.parent / "another")
    said(bundler("unpack", cwd=bundle.parent), 3, "several bundles", bundle.name, "another")
    done = bundler("inspect", cwd=bundle.parent / "another")
    assert done.returncode == 0, done.stderr


def test_unfit_destinations(bundler: Bundler, bundle: Path, tmp_path: Path) -> None:
    inside = bundler("unpack", bundle, bundle / "here", "--no-install")
    said(inside, 9)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    said(bundler("unpack", bundle, foreign, "--no-install"), 9)
    assert (foreign / "thesis.txt").read_text() == "mine"
    said(bundler("unpack", bundle, foreign, "--dry-run"), 9)
    dry = bundler("unpack", bundle, tmp_path / "new", "--dry-run")
    assert dry.returncode == 0 and not (tmp_path / "new").exists()
    assert "nothing stands in the way" in dry.stdout
    file = tmp_path / "file"
    file.write_text("")
    assert bundler("unpack", bundle, file, "--no-install").returncode in (8, 9)


def test_full_disk(bundle: Path, tmp_path: Path) -> None:
    """A small file system: named before the first write; without the preflight it ends in one message."""
    script = 'mount -t tmpfs -o size=8m none "$1" && shift && exec "$@"'
    place = tmp_path / "small"
    place.mkdir()
    enter = ("unshare", "-rm", "sh", "-ec", script, "sh", str(place))
    tight = run_bundler("unpack", bundle, place / "to", "--no-install", prefix=enter)
    said(tight, 8, "free")
    forced = run_bundler("unpack", bundle, place / "to", "--no-install", "--skip-preflight", prefix=enter)
    said(forced, 8)


def test_altered_manifest_and_sums(bundler: Bundler, bundle: Path, tmp_path: Path) -> None:
    manifest = bundle / "manifest.json"
    text = manifest.read_bytes()
    manifest.write_bytes(text.replace(b'"name":"', b'"name":"x', 1))
    said(bundler("unpack", bundle, tmp_path / "to"), 5, "manifest.json")
    assert not (tmp_path / "to").exists()
    manifest.write_bytes(b"{")
    assert bundler("inspect", bundle).returncode in (3, 5)


def test_a_newer_format_names_the_way_out(bundler: Bundler, bundle: Path, tmp_path: Path) -> None:
    import hashlib

    manifest = bundle / "manifest.json"
    data = json.loads(manifest.read_bytes()) | {"format": 99}
    old = hashlib.sha256(manifest.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(data))
    sums = bundle / "SHA256SUMS"
    sums.write_text(sums.read_text().replace(old, hashlib.sha256(manifest.read_bytes()).hexdigest()))
    said(bundler("unpack", bundle, tmp_path / "to"), 3, "newer bundler", "install.sh")


def test_defects_end_in_a_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from bundler.cli import main

    def broken(*words: object, **more: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(main.bundler_command, "main", broken)
    monkeypatch.delenv("BUNDLER_DEBUG", raising=False)
    with pytest.raises(SystemExit) as ending:
        main.run([])
    assert ending.value.code == 1
    assert "boom" in capsys.readouterr().err


def test_an_option_has_one_short_name() -> None:
    """What is -C or -e in one command is so in each that has the option."""
    import importlib

    short: dict[str, set[str]] = {}
    for name, module in MODULES.items():
        for parameter in getattr(importlib.import_module(module), f"{name}_command").params:
            words = getattr(parameter, "opts", [])
            for long in (word for word in words if word.startswith("--")):
                letters = "".join(word for word in words if not word.startswith("--"))
                short.setdefault(long, set()).add(letters)
    assert {word: sorted(letters) for word, letters in short.items() if len(letters) > 1} == {}


def test_an_installation_of_somebody_else(bundle: Path, tmp_path: Path) -> None:
    """Without the preflight, too, one who may not write is told so, and nothing is changed."""
    from tests.cli.test_journey import tree

    assert run_bundler("unpack", bundle, tmp_path / "to", "--no-install", cwd=tmp_path).returncode == 0
    (tmp_path / "to" / "pixi.toml").unlink()
    before = tree(tmp_path / "to", ())
    script = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'
    enter = ("unshare", "-rm", "sh", "-ec", script, "sh", str(tmp_path / "to"))
    done = run_bundler(
        *("unpack", bundle, tmp_path / "to", "--no-install", "--skip-preflight"), cwd=tmp_path, prefix=enter
    )
    assert done.returncode in (8, 9), done.stderr
    assert "fix:" in done.stderr and "Traceback" not in done.stderr
    assert tree(tmp_path / "to", ()) == before
