"""A program that is asked something: it reads nothing, answers, and is waited for so long and no longer."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Said:
    """How a program ended, and what it said."""

    code: int
    """Exit code; minus the signal's number where one ended it."""
    out: str
    err: str

    def last(self, lines: int = 8) -> list[str]:
        """Return the last lines of what it said, those of its standard error where there are any."""
        return (self.err.strip() or self.out.strip()).splitlines()[-lines:]


def ask(
    command: Sequence[str | Path],
    *,
    seconds: float | None = None,
    variables: Mapping[str, str] | None = None,
    folder: Path | str | None = None,
) -> Said:
    """Run a program to its end.

    :param seconds: how long it is waited for; ``None``: for as long as it takes.
    :param variables: exactly those that it gets; this process's where not given.
    :param folder: where it runs; here where not given.
    :raises TimeoutError: it wasn't through by then, and was killed.
    :raises OSError: it can't be started.
    """
    try:
        done = subprocess.run(
            [str(word) for word in command],
            cwd=folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"no answer after {seconds:.0f} s") from None
    return Said(done.returncode, done.stdout, done.stderr)
