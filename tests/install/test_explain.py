"""What a failed installer said, as a cause and a way out."""

from __future__ import annotations

from pathlib import Path

from bundler.install.explain import explain
from bundler.install.program import Ended


def test_too_few_files() -> None:
    """As uv says it where an administrator allows 64."""
    line = "  cause: failed to open file `segno/__init__.py`: Too many open files (os error 24)"
    problem = explain("uv", Ended(1, ("error: Failed to download `segno==1.6.6`", line)), Path("here"))
    assert "may not open as many files" in problem.what
    assert problem.hint is not None and "ulimit -n 4096" in problem.hint
