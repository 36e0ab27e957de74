"""A module in a process of its own: what it tells arrives as progress, news and one answer."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from bundler.install.child import call
from tests.install.inner import InnerTask

if TYPE_CHECKING:
    from pathlib import Path

    from bundler.install.program import Ended

NEWS = ["count", '{"advance": "many"}', '{"level": "info"}', "plain, of a library"]


class Heard:
    """A meter that keeps what it is told."""

    def __init__(self) -> None:
        self.count, self.lines = 0, list[str]()

    def advance(self, amount: int) -> None:
        self.count += amount

    def say(self, line: str) -> None:
        self.lines.append(line)

    detail = say


def ask(what: str, folder: Path, heard: Heard) -> tuple[list[int] | None, Ended]:
    return call("tests.install.inner", InnerTask(what), list[int], os.environ, folder, heard)


def test_progress_news_and_the_answer(tmp_path: Path) -> None:
    heard = Heard()
    answer, ended = ask("well", tmp_path, heard)
    assert (answer, ended.code) == ([1, 2], 0)
    assert heard.count == 2
    assert heard.lines == NEWS
    assert list(ended.tail) == NEWS


@pytest.mark.parametrize(
    ("what", "code", "said"),
    [
        ("fail", 1, [*NEWS, "ValueError: it failed", "in two lines"]),
        ("fail after it", 1, [*NEWS, "ValueError: it failed", "in two lines"]),
        ("die", -9, NEWS),
        ("silent", 0, NEWS),
    ],
)
def test_without_an_answer_its_end_is_told(what: str, code: int, said: list[str], tmp_path: Path) -> None:
    answer, ended = ask(what, tmp_path, Heard())
    assert (answer, ended.code, list(ended.tail)) == (None, code, said)


def test_one_that_never_reads_its_task_has_told_why(tmp_path: Path) -> None:
    """As what cuts the network does, where it fails."""
    task = InnerTask("x" * 2**20)
    refusing = [sys.executable, "-c", "print('no namespace'); raise SystemExit(4)"]
    answer, ended = call(
        "tests.install.inner", task, int, os.environ, tmp_path, Heard(), isolated=lambda _: refusing
    )
    assert (answer, ended.code, ended.tail) == (None, 4, ("no namespace",))
