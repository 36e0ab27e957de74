"""How long work reports itself: the interface that the work sees, and the silent one.

The command line supplies bars or plain lines (``bundler.cli.progress``); libraries' users need none.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager


class Meter(Protocol):
    """One phase under way. Its methods may be called from any thread."""

    def advance(self, amount: int) -> None:
        """Count ``amount`` more units as done; a negative one takes some back."""

    def say(self, line: str) -> None:
        """Show one line of news above the bar."""

    def detail(self, line: str) -> None:
        """Show one line of a program that works for the phase, to those who want to see all."""


class Reporter(Protocol):
    """Where phases are shown."""

    def phase(
        self, name: str, total: int | None = None, *, unit: str = "B", done: int = 0
    ) -> AbstractContextManager[Meter]:
        """Open a phase.

        :param name: what is being done: "fetch", "write".
        :param total: units in all, or ``None`` where unknown.
        :param unit: "B" for bytes, else the counted thing.
        :param done: units finished by an earlier run, which count for the bar and not for the rate.
        """

    def say(self, line: str) -> None:
        """Show one line outside any phase."""


class SilentMeter:
    """A meter that shows nothing."""

    def advance(self, amount: int) -> None:
        """Show nothing."""

    def say(self, line: str) -> None:
        """Show nothing."""

    def detail(self, line: str) -> None:
        """Show nothing."""


class SilentReporter:
    """A reporter that shows nothing."""

    @contextmanager
    def phase(
        self, name: str, total: int | None = None, *, unit: str = "B", done: int = 0
    ) -> Iterator[Meter]:
        """Open a phase that shows nothing."""
        yield SilentMeter()

    def say(self, line: str) -> None:
        """Show nothing."""


SILENT: Reporter = SilentReporter()
"""The reporter for callers that want none."""
