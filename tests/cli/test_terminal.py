"""What others wrote reaches the terminal as text: it can neither command the terminal nor hide."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from bundler.cli.ending import fail
from bundler.cli.output import say, show, show_facts
from bundler.errors import InputError
from tests.cli.conftest import PROJECT, run_bundler

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = "\x1b]0;owned\x07 \x9b31m \u202egnp.exe\u2028next"


@pytest.mark.parametrize("result", [True, False])
def test_news(result: bool, capsys: pytest.CaptureFixture[str]) -> None:
    say(f"model {HOSTILE}", result=result)
    shown = "".join(capsys.readouterr())
    assert shown.startswith("model ") and not set(shown) & set("\x1b\x07\x9b\u202e\u2028")


def test_errors(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        fail(InputError(f"no file {HOSTILE}", where="here"))
    shown = capsys.readouterr().err
    assert shown.endswith("\n  where: here\n") and not set(shown) & set("\x1b\x07\x9b\u202e\u2028")


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    done = run_bundler("inspect", f"./{HOSTILE}", cwd=tmp_path)
    assert done.returncode and not set(done.stderr) & set("\x1b\x07\x9b\u202e\u2028")


def test_answers_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    """JSON too may be looked at in a terminal: it says the same in plain letters."""
    show_facts({"name": HOSTILE + "\x7f", "path": "\udc80"})
    shown = capsys.readouterr().out
    assert shown.isascii() and "\x1b" not in shown and "\x7f" not in shown
    assert json.loads(shown) == {"name": HOSTILE + "\x7f", "path": "\udc80"}


def test_an_answer_adds_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    show("model one\nsigned by everybody", "second")
    assert capsys.readouterr().out == "model one\\nsigned by everybody\nsecond\n"


def test_everything_is_printed_in_one_place() -> None:
    for path in (PROJECT / "bundler" / "cli").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert path.name == "output.py" or not re.search(r"click\.echo\(|(?<!\w)print\(", text), path.name
