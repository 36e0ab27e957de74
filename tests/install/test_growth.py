"""Progress by what a program writes: on its way, never past the whole, and whole at its end."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from bundler.common.progress import SilentMeter
from bundler.install.growth import counted

if TYPE_CHECKING:
    from pathlib import Path


class Seen(SilentMeter):
    """A meter that keeps how far it was."""

    def __init__(self) -> None:
        self.steps = [0]

    def advance(self, amount: int) -> None:
        self.steps.append(self.steps[-1] + amount)


def write(folder: Path, times: int) -> None:
    """Write 10 MB, wait, and so on."""
    loop = "for n in range(int(sys.argv[1])): open(str(n), 'wb').write(bytes(10**7)); time.sleep(1.2)"
    program = f"import sys, time\n{loop}"
    subprocess.run([sys.executable, "-c", program, str(times)], cwd=folder, check=True)


def test_what_is_written_counts_on_its_way(tmp_path: Path) -> None:
    seen = Seen()
    with counted(seen, 10_000_000):
        write(tmp_path, 2)
    assert seen.steps[-1] == 10_000_000
    assert any(4_900_000 <= step <= 5_100_000 for step in seen.steps), "half of it after half the writing"
    assert seen.steps == sorted(seen.steps)


def test_more_than_was_expected_is_not_the_whole_before_the_end(tmp_path: Path) -> None:
    seen = Seen()
    with counted(seen, 1000):
        write(tmp_path, 1)
        assert seen.steps[-1] == 950
    assert seen.steps[-1] == 1000


def test_what_fails_is_not_whole() -> None:
    seen = Seen()
    with pytest.raises(ValueError, match="it failed"), counted(seen, 1000):
        raise ValueError("it failed")
    assert seen.steps == [0]
