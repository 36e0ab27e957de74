"""The benchmarks that make a table run, small, and what they say is so whatever the host's speed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import PROJECT

if TYPE_CHECKING:
    from pathlib import Path


def run(*words: str, work: Path) -> dict[str, list[str]]:
    """Run a benchmark; return its table's rows by their first cell."""
    command = [sys.executable, "-m", *words, "--work", str(work)]
    process = subprocess.Popen(
        command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    said, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert not list(work.iterdir()), "what it made is gone"
    if shutil.which("ip"):
        left = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False).stdout
        assert f"rack{process.pid}-" not in left
    lines = [line for line in said.splitlines() if line.startswith("| ") and "---" not in line]
    cells = [[cell.strip() for cell in line.replace("\\|", "/").strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in cells}


def megabytes(cell: str) -> float:
    number, unit = cell.split()
    return float(number) * {"kB": 0.001, "MB": 1, "GB": 1000}[unit]


def test_an_update_carries_and_writes_what_changed(tmp_path: Path) -> None:
    table = run("benchmarks.update", "--size", "96MB", "--shards", "12", work=tmp_path)
    carried, _, written = (megabytes(cell) for cell in table["a delta, as an update"][:3])
    assert 13 <= carried < 14 and 13 <= written < 14, "a shard of 8 MB and a wheel of 5 MB"
    anew = [megabytes(cell) for cell in table["unpacked anew"][:3]]
    assert anew[0] > 96 and anew[2] > 96
    assert megabytes(table["the whole bundle, as an update"][2]) < 14


def _can_make_links() -> bool:
    """Whether network namespaces can be made here."""
    if os.geteuid() or not all(map(shutil.which, ("ip", "tc", "ss", "curl", "zstd"))):
        return False
    name = f"probe{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode == 0
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return made


@pytest.mark.skipif(
    not _can_make_links(), reason="no network namespaces, or not all of ip, tc, ss, curl, zstd"
)
def test_a_rack_is_measured_and_taken_down(tmp_path: Path) -> None:
    table = run("benchmarks.rack", "--size", "8MB", "--rate", "400mbit", "--hosts", "2", work=tmp_path)
    assert {"share, unpack", "share, unpack --share"} < set(table) and len(table) >= 4
