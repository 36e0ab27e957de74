"""Progress as a person sees it: tqdm's bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from bundler.cli.output import MANNER, say, unheard
from bundler.common.progress import SILENT
from bundler.common.units import duration_text, size_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bundler.common.progress import Meter, Reporter

STAGE_INTERVAL = 60.0
"""Seconds until a stage that stays is told a second time where lines can't be written over."""
LINE_INTERVAL = 10.0
"""Seconds between two plain lines of one phase."""


def reporter() -> Reporter:
    """Return bars where standard error is a terminal of known width, else plain lines; quiet, neither.

    A serial console has no width, and tqdm would print nothing at all there.
    """
    if MANNER.quiet:
        return SILENT
    return BarReporter() if sys.stderr.isatty() and _columns() else LineReporter()


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        return 0


class BarMeter:
    """One tqdm bar; tqdm's own lock makes it safe for threads."""

    def __init__(self, bar: tqdm[Any]) -> None:
        self._bar = bar
        self._lock = threading.Lock()

    def advance(self, amount: int) -> None:
        """Move the bar."""
        with self._lock:
            self._bar.update(amount)

    def say(self, line: str) -> None:
        """Print above the bar."""
        say(line)


class BarReporter:
    """Bars with rate and ETA."""

    @contextmanager
    def phase(
        self, name: str, total: int | None = None, *, unit: str = "B", done: int = 0
    ) -> Iterator[Meter]:
        """Show a bar until the phase ends."""
        scaled = unit == "B"
        with tqdm(
            total=total,
            initial=done,
            desc=name,
            unit=unit if scaled else f" {unit}",
            unit_scale=scaled,
            dynamic_ncols=True,
            file=sys.stderr,
            mininterval=0.2,
        ) as bar:
            yield BarMeter(bar)

    def say(self, line: str) -> None:
        """Print a line."""
        say(line)


class StageLine:
    """What is being waited for: one line that counts in place on a terminal, elsewhere one now and then."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._stage, self._pause, self._due = "", STAGE_INTERVAL, 0.0

    def __call__(self, stage: str, line: str) -> None:
        """Show the line of a stage; both empty where nothing is waited for any more."""
        if MANNER.quiet:
            return
        with unheard(sys.stderr):
            if sys.stderr.isatty() and _columns():
                self._show(line)
            elif stage:
                self._print_rarely(stage, line)

    def _show(self, line: str) -> None:
        if self._bar is None and line:
            self._bar = tqdm(bar_format="{desc}", leave=False, dynamic_ncols=True, file=sys.stderr)
        if self._bar is not None and line:
            self._bar.set_description_str(line)
        elif self._bar is not None:
            self._bar.close()
            self._bar = None

    def _print_rarely(self, stage: str, line: str) -> None:
        """Print a stage's first line, and then after a minute, two, four and so on."""
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._pause = stage, STAGE_INTERVAL
        elif now < self._due:
            return
        else:
            self._pause *= 2
        self._due = now + self._pause
        say(line)


class LineMeter:
    """One phase as plain lines: one now and then, one at its end."""

    def __init__(self, name: str, total: int | None, unit: str, done: int) -> None:
        self._name, self._total, self._unit = name, total, unit
        self._start = self._last = time.monotonic()
        self._before = self._done = done
        self._lock = threading.Lock()

    def advance(self, amount: int) -> None:
        """Count, and print a line if the last is long ago."""
        with self._lock:
            self._done += amount
            now = time.monotonic()
            if now - self._last < LINE_INTERVAL:
                return
            self._last = now
            line = self._line(now)
        self.say(line)

    def say(self, line: str) -> None:
        """Print a line."""
        say(line)

    def finish(self) -> None:
        """Print the last line."""
        self.say(self._line(time.monotonic(), last=True))

    def _amount(self, count: float) -> str:
        return size_text(count) if self._unit == "B" else f"{count:.0f} {self._unit}"

    def _line(self, now: float, *, last: bool = False) -> str:
        elapsed = max(now - self._start, 1e-3)
        rate = (self._done - self._before) / elapsed
        of = f" of {self._amount(self._total)}" if self._total is not None and not last else ""
        line = f"{self._name}: {self._amount(self._done)}{of}, {duration_text(elapsed)}"
        if rate > 0 and self._unit == "B":
            line += f", {size_text(rate)}/s"
        if rate > 0 and self._total is not None and not last:
            line += f", {duration_text((self._total - self._done) / rate)} left"
        return line


class LineReporter:
    """Plain lines for logs and pipes."""

    @contextmanager
    def phase(
        self, name: str, total: int | None = None, *, unit: str = "B", done: int = 0
    ) -> Iterator[Meter]:
        """Print lines until the phase ends."""
        meter = LineMeter(name, total, unit, done)
        yield meter
        meter.finish()

    def say(self, line: str) -> None:
        """Print a line."""
        say(line)
