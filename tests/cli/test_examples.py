"""The examples at the end of each help: lines that the command takes."""

from __future__ import annotations

import importlib
import re
import shlex
from typing import TYPE_CHECKING

import click
import pytest

from bundler.cli.examples import EXAMPLES
from bundler.cli.main import MODULES
from tests.cli.conftest import PROJECT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Bundler

LINES = [(name, line) for name, lines in EXAMPLES.items() for line in lines]


def command_of(name: str) -> click.Command:
    found: click.Command = getattr(importlib.import_module(MODULES[name]), f"{name}_command")
    return found


def calls(line: str) -> list[list[str]]:
    """Return the words of each call of bundler in a line of shell."""
    parts = re.split(r"&&|\||\s>\s", line.replace('eval "$(', "").replace(')"', ""))
    return [words[1:] for part in parts if (words := shlex.split(part))[0] == "bundler"]


def with_places(words: list[str], root: Path) -> list[str]:
    """Return a call's words with each path in a folder of the test's, where it exists."""
    placed = []
    for word in words:
        if re.match(r"(~?/|bundles/)|host\.json$", word):
            place = root / word.lstrip("~/")
            folder = word.startswith(("/media", "/opt", "/data", "/etc/systemd", "bundles"))
            (place if folder else place.parent).mkdir(parents=True, exist_ok=True)
            if not folder:
                place.touch()
            word = str(place)
        placed.append(word)
    return placed


def test_every_command_has_some() -> None:
    assert list(EXAMPLES) == list(MODULES)
    for name, line in LINES:
        assert any(words[0] == name for words in calls(line)), line


@pytest.mark.parametrize(("name", "line"), LINES)
def test_an_example_is_taken(name: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for called, *words in calls(line):
        command = command_of(called)
        command.make_context(called, with_places(words, tmp_path)).close()
        with pytest.raises(click.UsageError):
            command.make_context(called, ["--frobnicate", *words])


@pytest.mark.parametrize("name", sorted(MODULES))
def test_help_ends_with_them_as_they_are_typed(bundler: Bundler, name: str) -> None:
    shown = bundler(name, "--help", COLUMNS="80").stdout
    assert shown.endswith("\nExamples:\n" + "".join(f"  {line}\n" for line in EXAMPLES[name]))
    assert max(map(len, shown.splitlines())) <= 80


def test_environments_and_models_are_there() -> None:
    pixi = (PROJECT / "pixi.toml").read_text(encoding="utf-8")
    known = {path.stem for path in (PROJECT / "manifests").glob("*.toml")}
    for _, line in LINES:
        for environment in re.findall(r"--(?:keep-)?env (\S+)", line):
            assert environment == "default" or re.search(rf"^{environment} = ", pixi, re.MULTILINE), line
        for model in re.findall(r"--model (\S+)", line):
            assert model in known or model.startswith("hf:"), line
