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
from bundler.common.text import printable
from bundler.common.units import duration_text, size_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bundler.common.progress import Meter, Reporter

STAGE_INTERVAL = 60.0
"""Seconds until a stage that stays is told a second time where lines can't be written over."""
LINE_INTERVAL = 10.0
"""Seconds between two plain lines of one phase at first; later it is a tenth of what has passed."""
LONGEST_INTERVAL = 300.0
"""Seconds between two of them at most."""
NARROW = 64
"""Columns from which a line has room for a bar and all its figures."""


def reporter() -> Reporter:
    """Return bars where standard error is a terminal that can show them, else plain lines; quiet, neither."""
    if MANNER.quiet:
        return SILENT
    return BarReporter() if in_place() else LineReporter()


def in_place() -> bool:
    """Say whether a line can be written over.

    A dumb terminal can't. A serial console has no width, and tqdm would print nothing at all there.
    """
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and _columns() > 0


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        return 0


def amount_text(count: float, unit: str) -> str:
    """Return so many of a unit: ``1.4 GB``, ``12 shards``."""
    return size_text(count) if unit == "B" else f"{count:.0f} {unit}"


def progress_parts(done: float, total: float | None, rate: float, unit: str) -> list[str]:
    """Return how far a phase is: ``1.2 GB of 358 GB``, ``1.1 GB/s``, ``5 min 24 s left``.

    :param rate: units a second; 0 where nothing is known.
    """
    parts = [amount_text(done, unit) + (f" of {amount_text(total, unit)}" if total is not None else "")]
    if rate > 0 and unit == "B":
        parts.append(f"{size_text(rate)}/s")
    if rate > 0 and total is not None:
        parts.append(f"{duration_text((total - done) / rate)} left")
    return parts


def outcome_parts(done: float, seconds: float, rate: float, unit: str) -> list[str]:
    """Return what a phase did: ``358 GB``, ``5 min 24 s``, ``1.1 GB/s``."""
    parts = [amount_text(done, unit), duration_text(seconds)]
    return [*parts, f"{size_text(rate)}/s"] if rate > 0 and unit == "B" else parts


class PhaseBar(tqdm):  # type: ignore[type-arg]  # which only its stubs take
    """tqdm's bar, that says sizes, rates and times as the rest of bundler does, and ends whole."""

    ended = False

    def end(self) -> None:
        """Show it whole: what a phase did without was done before, or wasn't needed."""
        self.ended = True
        if self.total is not None and self.n < self.total:
            self.initial += self.total - self.n
            self.n = self.total

    @property
    def format_dict(self) -> dict[str, Any]:
        """Return what tqdm makes the line of: a layout by the terminal's width, and the words in it."""
        known = dict(super().format_dict)
        done, columns, seconds = known["n"], known["ncols"] or 80, known["elapsed"]
        # More than was expected is the whole so far.
        total = None if known["total"] is None else max(known["total"], done)
        mean = (done - known["initial"]) / max(seconds, 1e-3)
        rate = mean if self.ended else known["rate"] or mean
        narrow = columns < NARROW
        if self.ended:
            parts = outcome_parts(done, seconds, rate, self.unit)
        else:
            parts = progress_parts(done, total, rate, self.unit)
            # What is left, where that is known, else how much is done.
            parts = (parts[-1:] if total else parts[:1]) if narrow else parts
        text = ", ".join(parts[:2] if narrow else parts)
        share = f" {100 * done // total:3.0f}%" if total else ""
        name = known["prefix"][: max(columns - len(share) - len(text) - 2, 8)]
        layout = "{name}:{share}|{bar}| {text}" if share and not narrow else "{name}:{share} {text}"
        return known | {"total": total, "bar_format": layout, "name": name, "share": share, "text": text}


class BarMeter:
    """One bar; tqdm's own lock makes it safe for threads."""

    def __init__(self, bar: PhaseBar) -> None:
        self._bar = bar
        self._lock = threading.Lock()

    def advance(self, amount: int) -> None:
        """Move the bar."""
        with self._lock:
            self._bar.update(amount)

    def say(self, line: str) -> None:
        """Print above the bar."""
        say(line)

    def detail(self, line: str) -> None:
        """Print above the bar where all is wanted."""
        if MANNER.verbose:
            say(line)


class BarReporter:
    """Bars with rate and ETA."""

    @contextmanager
    def phase(
        self, name: str, total: int | None = None, *, unit: str = "B", done: int = 0
    ) -> Iterator[Meter]:
        """Show a bar until the phase ends; one that ends well ends whole."""
        with PhaseBar(
            total=total,
            initial=done,
            desc=printable(name),
            unit=unit,
            dynamic_ncols=True,
            file=sys.stderr,
            mininterval=0.2,
        ) as bar:
            yield BarMeter(bar)
            bar.end()
            # Where there was nothing to do, nothing stays.
            bar.leave = bool(total != 0 or bar.n)

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
            if in_place():
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
            if now - self._last < min(max(LINE_INTERVAL, (now - self._start) / 10), LONGEST_INTERVAL):
                return
            self._last = now
            line = self._line(now)
        self.say(line)

    def say(self, line: str) -> None:
        """Print a line."""
        say(line)

    def detail(self, line: str) -> None:
        """Print a line where all is wanted."""
        if MANNER.verbose:
            say(line)

    def finish(self) -> None:
        """Print the last line, where there was anything to do."""
        if self._total != 0 or self._done:
            self.say(self._line(time.monotonic(), last=True))

    def _line(self, now: float, *, last: bool = False) -> str:
        elapsed = max(now - self._start, 1e-3)
        rate = (self._done - self._before) / elapsed
        if last:
            return f"{self._name}: {', '.join(outcome_parts(self._done, elapsed, rate, self._unit))}"
        parts = progress_parts(self._done, self._total, rate, self._unit)
        return f"{self._name}: {', '.join([parts[0], duration_text(elapsed), *parts[1:]])}"


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
