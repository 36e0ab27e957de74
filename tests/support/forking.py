"""A program that has bundler imported and forks for each job, from outside: a line a job, one an answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
LONGEST = 60.0
"""Seconds in which it must end."""


class Forking:
    """The process, from outside."""

    def __init__(self, module: str) -> None:
        """Start it.

        :param module: run with ``python -m``.
        """
        environment = {name: text for name, text in os.environ.items() if not name.startswith("BUNDLER_")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=PROJECT,
            env={**environment, "NO_COLOR": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def do(self, job: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a job."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        """End it."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(LONGEST)
