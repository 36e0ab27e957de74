"""``-q``: the answer and errors only. ``-v``: times, and the programs that are run."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

import pytest

from bundler.cli.main import MODULES
from bundler.cli.output import MANNER
from bundler.cli.progress import StageLine, reporter
from bundler.cli.verbose import timed
from tests.cli.conftest import run_bundler
from tests.serve.conftest import Bench, bench

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.conftest import Bundler

__all__ = ["bench"]


@pytest.fixture(autouse=True)
def manner() -> Iterator[None]:
    """Speak as by default again afterwards."""
    yield
    MANNER.begin(None, [])


@pytest.mark.parametrize("name", sorted(MODULES))
def test_every_command_takes_them(bundler: Bundler, name: str) -> None:
    for words in (("-q", "-v"), ("--quiet", "--verbose")):
        done = bundler(name, *words)
        assert done.returncode == 2
        assert "--quiet and --verbose contradict each other" in done.stderr


def test_quiet_leaves_the_answer(bundle: Path, tmp_path: Path) -> None:
    words = ("unpack", bundle, tmp_path / "to", "--installer", "native")
    quiet = run_bundler(*words, "-q", cwd=tmp_path)
    assert (quiet.returncode, quiet.stderr) == (0, "")
    assert quiet.stdout.startswith("environment default: installed by native in ")
    assert run_bundler("verify", tmp_path / "to", "-q", cwd=tmp_path).stderr == ""


def test_quiet_leaves_errors(bundler: Bundler, tmp_path: Path) -> None:
    done = bundler("verify", "-q")
    assert done.returncode == 3 and done.stderr.startswith("error: ") and done.stdout == ""


def test_quiet_shows_no_bar_and_no_stage(capsys: pytest.CaptureFixture[str]) -> None:
    MANNER.quiet = True
    shown = reporter()
    with shown.phase("write", 10) as meter:
        meter.advance(10)
        meter.say("news")
    shown.say("news")
    StageLine()("loading", "loading weights")
    assert capsys.readouterr() == ("", "")


def test_a_quiet_server_shows_no_log(bench: Bench) -> None:
    process = bench.popen(*bench.serve("-q"))
    try:
        assert bench.run("status", "--wait", "40", timeout=60).returncode == 0
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, "")


def test_verbose_has_times_and_programs(bench: Bench) -> None:
    words = ("doctor", "--python", bench.python, "--port", str(bench.port))
    done = bench.run(*words, "-v")
    lines = done.stderr.splitlines()
    times = [float(found[1]) for line in lines if (found := re.match(r" +(\d+\.\d) s  ", line))]
    assert times == sorted(times)
    assert any(f"s  running: {bench.python} " in line for line in lines)
    assert re.search(r"s  bundler doctor: \d+ s, \d.* of memory at most, its largest child \d", done.stderr)
    assert max(map(len, lines)) < 500, "a program that is handed over whole is told by its beginning"
    assert "running: " not in bench.run(*words).stderr


@pytest.mark.parametrize("verbose", [False, True])
def test_an_installers_own_lines_are_for_who_wants_all(bundle: Path, tmp_path: Path, verbose: bool) -> None:
    words = ("unpack", bundle, tmp_path / "to", "--installer", "native", *(["-v"] if verbose else []))
    said = run_bundler(*words, cwd=tmp_path).stderr
    assert "default: imported click" in said
    assert ("Installed 4 packages" in said) == verbose


def test_verbose_shows_what_libraries_log_and_hides_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    MANNER.verbose = True
    with timed("bundler fetch"):
        logging.getLogger("httpx").info("HTTP Request: GET %s", "https://user:secret@example.org/file")
    shown = capsys.readouterr().err
    assert "httpx: HTTP Request: GET https://" in shown and "secret" not in shown
    MANNER.verbose = False
    logging.getLogger("httpx").info("again")
    assert capsys.readouterr().err == ""


def test_they_stand_behind_the_command(bundler: Bundler) -> None:
    done = bundler("-q", "verify")
    assert done.returncode == 2 and "bundler COMMAND -q" in done.stderr
