"""The suite in the background of a script, where a shell has SIGINT ignored: children can be interrupted."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
PROGRAM = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, cwd=PROJECT, timeout=120, check=True)


def in_background(*words: str) -> str:
    """Return what a command says that a script starts in the background."""
    return run("bash", "-c", f"{shlex.join(words)} & wait $!").stdout


def test_a_child_can_be_interrupted() -> None:
    """The handler that Python sets is there, in this process and in its children."""
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert run(sys.executable, "-c", PROGRAM).stdout == "True\n"


def test_a_run_in_the_background_can_interrupt_its_children() -> None:
    """Without the suite's own part, the same shell gives a child that no interrupt ends."""
    assert in_background(sys.executable, "-c", PROGRAM) == "False\n"
    chosen = f"{Path(__file__).relative_to(PROJECT)}::{test_a_child_can_be_interrupted.__name__}"
    said = in_background(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", chosen)
    assert "1 passed" in said
