"""Units restarted when another generation comes to count: those that serve from an older one, no others."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from bundler import generations
from bundler.common.progress import SILENT
from bundler.errors import PreflightError, ServeError
from bundler.generations import Generations
from bundler.serve.server_record import run_folder, servers
from bundler.work.running import restart
from tests.serve.conftest import Bench, bench, make_installation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["bench"]

SYSTEMCTL = """#!/bin/sh
case $1 in
  show) cat "$0.pid" 2>/dev/null || echo 0 ;;
  *) echo "$@" >>"$0.log"; [ ! -e "$0.fails" ] || { echo "played: it fails" >&2; exit 1; } ;;
esac
"""
"""What bundler asks of systemd: whose main process a unit has, and to restart it."""


@pytest.fixture
def systemctl(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a played systemctl, the first on the search path."""
    program = bench.tmp / "bin" / "systemctl"
    program.write_text(SYSTEMCTL)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", bench.env["PATH"])
    return program


@pytest.fixture
def served(bench: Bench) -> Iterator[int]:
    """Serve in the foreground from the first of two generations, as a unit does; return its main process."""
    make_installation(generations.root_of(bench.root, 2))
    generations.write(bench.root, Generations(current=1, whole=(1, 2)))
    process = bench.popen(*bench.serve())
    while not servers(run_folder(bench.root)):
        assert process.poll() is None
        time.sleep(0.05)
    yield process.pid
    bench.run("stop", "--all")
    process.communicate(timeout=30)


@pytest.fixture
def units(bench: Bench, tmp_path: Path) -> Path:
    folder = tmp_path / "units"
    folder.mkdir()
    (folder / "bundler-tiny.service").write_text(f"ExecStart={bench.root}/bin/bundler serve\n")
    (folder / "bundler-other.service").write_text("ExecStart=/opt/other/bin/bundler serve\n")
    return folder


def asked(systemctl: Path) -> list[str]:
    log = systemctl.with_name("systemctl.log")
    return log.read_text().splitlines() if log.exists() else []


def test_a_unit_that_serves_from_another_generation(
    bench: Bench, served: int, systemctl: Path, units: Path
) -> None:
    restart(bench.root, 2, SILENT, units)
    assert asked(systemctl) == [], "the server that runs isn't the unit's"
    systemctl.with_name("systemctl.pid").write_text(f"{served}\n")
    restart(bench.root, 1, SILENT, units)
    assert asked(systemctl) == [], "it runs from that one"
    restart(bench.root, 2, SILENT, units)
    assert asked(systemctl) == ["restart bundler-tiny.service"]
    systemctl.with_name("systemctl.fails").touch()
    with pytest.raises(ServeError, match="didn't start again: played: it fails"):
        restart(bench.root, 2, SILENT, units)


def test_rolled_back_with_a_restart(bench: Bench, served: int, systemctl: Path) -> None:
    """A server that no unit started isn't touched, and is named."""
    done = bench.run("rollback", "--to", "2", "--restart")
    assert done.returncode == 0, done.stderr
    assert f"(pid {servers(run_folder(bench.root))[0].pid}) runs on as it was started" in done.stderr
    assert asked(systemctl) == [] and servers(run_folder(bench.root))[0].running


def test_without_systemd_nothing_is_begun(bench: Bench, tmp_path: Path) -> None:
    make_installation(generations.root_of(bench.root, 2))
    generations.write(bench.root, Generations(current=1, whole=(1, 2)))
    empty = tmp_path / "empty"
    empty.mkdir()
    done = bench.run("rollback", "--to", "2", "--restart", PATH=str(empty))
    assert done.returncode == PreflightError.exit_code and "there is no systemctl here" in done.stderr
    assert generations.read(bench.root).current == 1
