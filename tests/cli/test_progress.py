"""Progress on terminals of any width and kind, and elsewhere."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from typing import TYPE_CHECKING

import pytest

from bundler.cli import progress
from bundler.cli.progress import BarReporter, LineReporter, reporter
from bundler.host.finding import Finding, table
from tests.cli.conftest import PROJECT
from tests.support.terminal import read_to_end

if TYPE_CHECKING:
    from pathlib import Path

PHASES = """
import sys, time
from bundler.cli.progress import reporter
shown = reporter()
with shown.phase("unpack", 3_000_000_000, done=1_000_000_000) as meter:
    meter.advance(200_000_000)
    time.sleep(0.3)
    meter.advance(1)
with shown.phase("prove a model with a long name whole", unit="shards") as meter:
    meter.advance(3)
with shown.phase("more than expected", 1000) as meter:
    meter.advance(5000)
try:
    with shown.phase("ends badly", 1000) as meter:
        meter.advance(10)
        time.sleep(0.3)
        meter.advance(10)
        raise KeyError
except KeyError:
    pass
"""


def in_terminal(columns: int, *words: str, **variables: str) -> str:
    """Return what a program writes to a terminal."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
    process = subprocess.Popen(
        [sys.executable, *words],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env={**kept, "PYTHONPATH": str(PROJECT), "TERM": "xterm", **variables},
    )
    os.close(follower)
    seen = read_to_end(leader)
    os.close(leader)
    assert process.wait(30) in (0, 2)
    return seen.decode()


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_bars_fit_and_end_whole(columns: int) -> None:
    shown = in_terminal(columns, "-c", PHASES)
    lines = [line for part in shown.split("\r\n") for line in part.split("\r")]
    assert max(map(len, lines)) <= columns
    ends = [part.split("\r")[-1] for part in shown.split("\r\n")]
    assert ends[0].startswith("unpack: 100%") and "3.0 GB, 0 s" in ends[0]
    assert ends[1].startswith("prove a model") and ends[1].endswith(": 3 shards, 0 s")
    assert ends[2].startswith("more than expected: 100%") and "5.0 kB" in ends[2]
    assert ends[3].startswith("ends badly:   2%"), "what failed doesn't look done"
    during = next(line for line in lines if " 40%" in line)
    assert "left" in during
    assert ("1.2 GB of 3.0 GB, " in during) == (columns > 40)


def test_a_dumb_terminal_gets_lines() -> None:
    shown = in_terminal(80, "-c", PHASES, TERM="dumb")
    assert shown.startswith("unpack: 1.2 GB, 0 s, ") and "\r" not in shown.replace("\r\n", "")


@pytest.mark.parametrize(
    ("variables", "colored"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_errors_are_colored_where_that_is_wanted(
    tmp_path: Path, variables: dict[str, str], colored: bool
) -> None:
    shown = in_terminal(80, "-m", "bundler", "verify", "--sha256", "x", **variables)
    assert ("\x1b[" in shown) == colored and "error" in shown


@pytest.mark.parametrize("columns", [40, 80])
def test_help_fits(columns: int) -> None:
    for words in ([], ["serve"], ["unpack"], ["pack"], ["verify"]):
        shown = in_terminal(columns, "-m", "bundler", *words, "--help").replace("\r\n", "\n")
        assert max(map(len, shown.partition("\nExamples:\n")[0].splitlines())) <= columns


@pytest.mark.parametrize(("columns", "expected"), [(80, BarReporter), (0, LineReporter)])
def test_a_terminal_without_a_width_gets_lines(
    monkeypatch: pytest.MonkeyPatch, columns: int, expected: type
) -> None:
    """Serial consoles say 0, and hours of unpacking must not look like nothing there."""
    monkeypatch.setenv("TERM", "xterm")
    leader, follower = os.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with os.fdopen(follower, "w") as stream:
        monkeypatch.setattr("sys.stderr", stream)
        assert isinstance(reporter(), expected)
    os.close(leader)


def test_what_is_no_terminal_gets_lines(capfd: pytest.CaptureFixture[str]) -> None:
    chosen = reporter()
    assert isinstance(chosen, LineReporter)
    with chosen.phase("write", 2_000_000) as meter:
        meter.advance(2_000_000)
    assert capfd.readouterr().err.startswith("write: 2.0 MB, 0 s")


def test_where_there_is_nothing_to_do_nothing_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    with LineReporter().phase("mend", 0):
        pass
    assert capfd.readouterr().err == ""
    program = "from bundler.cli.progress import reporter as r\nwith r().phase('mend', 0): pass"
    shown = in_terminal(80, "-c", program)
    assert shown.rpartition("\r")[0].rpartition("\r")[2].strip() == "" and "\n" not in shown


class Clock:
    """A clock that is set by hand."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


def test_a_log_gets_a_line_each_ten_seconds_and_later_fewer(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    times = []
    seconds = 10 * 3600
    with LineReporter().phase("write", seconds * 10**6) as meter:
        for second in range(1, seconds + 1):
            clock.now += 1
            meter.advance(10**6)
            if capfd.readouterr().err:
                times.append(second)
    pauses = [later - earlier for earlier, later in zip([0, *times], times, strict=False)]
    assert pauses[:10] == [10] * 10
    assert pauses == sorted(pauses) and pauses[-1] == 300
    assert len(times) < 200
    assert re.fullmatch(r"write: 36\.0 GB, 10 h 00 min, 1\.0 MB/s\n", capfd.readouterr().err)


def test_a_line_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    with LineReporter().phase("write", 100 * 10**9, done=10 * 10**9) as meter:
        clock.now += 10
        meter.advance(10**10)
        line = capfd.readouterr().err
    assert line == "write: 20.0 GB of 100 GB, 10 s, 1.0 GB/s, 1 min 20 s left\n"


def test_a_dumb_terminal_shows_a_stage_once() -> None:
    program = "from bundler.cli.progress import StageLine; s = StageLine(); s('load', 'load, 1 s')"
    assert in_terminal(80, "-c", f"{program}; s('load', 'load, 2 s')", TERM="dumb") == "load, 1 s\r\n"


@pytest.mark.parametrize("columns", [40, 80])
def test_what_doctor_sees_is_broken_at_words(columns: int) -> None:
    seen = "it is said at length what this host has of all that a server could want of it"
    finding = Finding(
        level="warn", group="system", name="open files", seen=seen, wanted="more", fix="f " * 50
    )
    _, *lines, fix = table([finding], columns)
    assert len(lines) > 1 and max(map(len, lines)) <= columns
    assert " ".join(" ".join(lines).split()) == f"WARN open files {seen} (wanted: more)"
    assert fix.strip() == f"fix: {'f ' * 50}".strip(), "what is to be copied stays whole"
    assert len(table([finding])) == 3
