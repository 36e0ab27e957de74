"""Run an installer's program: its output heard as it comes, its end kept for the explanation."""

from __future__ import annotations

import subprocess
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bundler.errors import InstallError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from bundler.common.progress import Meter

TAIL = 40
"""Lines of output that are kept."""
DECORATION = " \t│╰─▶├┬×╭·"
"""What draws the tree of an error message and says nothing."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A program that has ended."""

    code: int
    """Its exit code; negative: the signal that ended it."""
    tail: tuple[str, ...]
    """The end of its output."""

    @property
    def text(self) -> str:
        """The end of its output as one text."""
        return "\n".join(self.tail)

    @property
    def how(self) -> str:
        """``exit code 1`` or ``signal 9``."""
        return f"exit code {self.code}" if self.code >= 0 else f"signal {-self.code}"

    def said(self, count: int = 8) -> list[str]:
        """Return the last lines that say something."""
        return [line.strip() for line in self.tail if line.strip(DECORATION)][-count:]


def to(meter: Meter) -> Callable[[str], str]:
    """Return what hears a program: each line is a detail of a phase, and kept."""

    def hear(line: str) -> str:
        meter.detail(line)
        return line

    return hear


def run(
    command: Sequence[str],
    variables: Mapping[str, str],
    folder: Path,
    hear: Callable[[str], str | None],
    *,
    given: str | None = None,
    held: int | None = None,
) -> Ended:
    """Run a program to its end, and have each line that it prints heard.

    Interrupted, the program is ended first.

    :param variables: its whole environment.
    :param folder: its working folder.
    :param hear: shows of a line what it wants, and returns what is kept of it; ``None``: nothing.
    :param given: text for its standard input.
    :param held: a file descriptor that it inherits, for a lock that lasts as long as it.
    :raises InstallError: it can't be started.
    """
    tail: deque[str] = deque(maxlen=TAIL)
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=dict(variables),
            stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            pass_fds=() if held is None else (held,),
        )
    except OSError as problem:
        raise InstallError(f"{command[0]} can't be started: {problem.strerror}") from problem
    with process:
        try:
            if given is not None and process.stdin:
                # One that ended before it read has told why.
                with suppress(BrokenPipeError):
                    process.stdin.write(given)
                    process.stdin.close()
            for line in process.stdout or ():
                text = hear(line.rstrip())
                if text is not None:
                    tail.append(text)
        except BaseException:
            process.terminate()
            raise
    return Ended(process.returncode, tuple(tail))
