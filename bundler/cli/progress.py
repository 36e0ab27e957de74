"""Progress as a person sees it: tqdm's bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from bundler.common.units import duration_text, size_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

    from bundler.common.progress import Meter, Reporter

LINE_INTERVAL = 10.0
"""Seconds between two plain lines of one phase."""


def say(line: str, *, result: bool = False) -> None:
    """Print a line of news to standard error, or of the result to standard output.

    Never raises: work that must be done to its end doesn't depend on who hears of it.
    """
    stream = sys.stdout if result else sys.stderr
    with _unheard(stream):
        print(line, file=stream, flush=True)


@contextmanager
def _unheard(stream: TextIO) -> Iterator[None]:
    """Go on silently where the terminal is closed, the reader of the pipe gone, or the letters unknown."""
    try:
        yield
    except OSError:
        # What is in the buffer would raise again at exit.
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
    except ValueError:
        return


def reporter() -> Reporter:
    """Return bars where standard error is a terminal of known width, else plain lines.

    A serial console has no width, and tqdm would print nothing at all there.
    """
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
        with _unheard(sys.stderr):
            tqdm.write(line, file=sys.stderr)


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
        with _unheard(sys.stderr):
            tqdm.write(line, file=sys.stderr)


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
