"""Runs the demo's commands, shown as one would type them, and keeps the time of each step."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class StepError(Exception):
    """A command of the demo failed."""


@dataclass
class Shell:
    """Where the commands' output goes: straight to the terminal."""

    spent: dict[str, float] = field(default_factory=dict)
    """Seconds of each step, by its title."""
    _step: str = ""
    _since: float = 0.0

    @property
    def command(self) -> Path:
        """The command ``bundler`` beside this interpreter, relative to here where it lies below."""
        path = Path(sys.executable).parent / "bundler"
        return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path

    def title(self, text: str) -> None:
        """Begin a step."""
        now = time.monotonic()
        if self._step:
            self.spent[self._step] = now - self._since
        self._step, self._since = text, now
        bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
        print(f"\n{bold}== {text}{plain}", flush=True)

    def say(self, text: str) -> None:
        """Print a line of the demo's own."""
        print(text, flush=True)

    def bundler(self, *words: str | Path, allowed: Sequence[int] = ()) -> int:
        """Run a command of bundler.

        :param allowed: exit codes beside 0 that are no failure.
        :raises StepError: another exit code.
        """
        return self.run(self.command, *words, allowed=allowed)

    def cut_off(self, *words: str | Path, allowed: Sequence[int] = ()) -> int:
        """Run a command where there is no network, if this machine allows that.

        :raises StepError: it ended with an exit code that is neither 0 nor allowed.
        """
        from bundler.errors import RehearsalError
        from bundler.install.namespace import find_isolation

        try:
            prefix = find_isolation().prefix
        except RehearsalError as problem:
            self.say(f"(the network can't be cut on this machine, so it isn't: {problem})")
            prefix = ()
        return self.run(*(_short(word) for word in prefix), *words, allowed=allowed)

    def show(self, words: Sequence[str | Path], cwd: Path | None = None) -> str:
        """Print a command as one would type it, and return it."""
        command = shlex.join(str(word) for word in words)
        print(f"$ {f'cd {shlex.quote(str(cwd))} && ' if cwd else ''}{command}", flush=True)
        return command

    def run(self, *words: str | Path, cwd: Path | None = None, allowed: Sequence[int] = ()) -> int:
        """Run a command and show it.

        :raises StepError: it ended with an exit code that is neither 0 nor allowed, or isn't there.
        """
        command = self.show(words, cwd)
        try:
            code = subprocess.run([str(word) for word in words], cwd=cwd, check=False).returncode
        except OSError as problem:
            raise StepError(f"{command}: {problem.strerror}") from problem
        if code and code not in allowed:
            raise StepError(f"this command ended with exit code {code}:\n  {command}")
        return code


def _short(word: str) -> str:
    return Path(word).name if word.endswith(("/unshare", "/bwrap")) else word
