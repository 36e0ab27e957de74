"""What a check found: the value seen, the value wanted, and the way to mend it."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Level = Literal["good", "warn", "fail"]

GROUPS = ("destination", "driver", "gpus", "memory", "system", "environment", "network", "weights")
"""The order in which findings are shown."""


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One check's result."""

    level: Level
    group: str
    """One of :data:`GROUPS`."""
    name: str
    """What was looked at: ``driver branch``."""
    seen: str
    wanted: str = ""
    fix: str = ""
    """What to do about it; empty where nothing needs doing."""

    @property
    def line(self) -> str:
        """The finding as one line of an error's message."""
        text = f"{self.name}: {self.seen}"
        if self.wanted:
            text += f"; wanted: {self.wanted}"
        return f"{text}; {self.fix}" if self.fix else text


def good(group: str, name: str, seen: str, wanted: str = "") -> Finding:
    """Return a finding that needs nothing."""
    return Finding(level="good", group=group, name=name, seen=seen, wanted=wanted)


def warn(group: str, name: str, seen: str, wanted: str = "", fix: str = "") -> Finding:
    """Return a finding that may do harm."""
    return Finding(level="warn", group=group, name=name, seen=seen, wanted=wanted, fix=fix)


def fail(group: str, name: str, seen: str, wanted: str = "", fix: str = "") -> Finding:
    """Return a finding that keeps the server from running."""
    return Finding(level="fail", group=group, name=name, seen=seen, wanted=wanted, fix=fix)


def worst(findings: Iterable[Finding]) -> Level:
    """Return the worst level among findings; ``good`` where there are none."""
    levels = {finding.level for finding in findings}
    return "fail" if "fail" in levels else "warn" if "warn" in levels else "good"


def table(findings: Sequence[Finding], columns: int = 0) -> list[str]:
    """Return findings as lines of text, by group, each with its fix below it.

    :param columns: of the terminal, by which what was seen is broken; 0: it isn't. A fix stays on its line,
        to be copied.
    """
    marks = {"good": "ok  ", "warn": "WARN", "fail": "FAIL"}
    width = max((len(finding.name) for finding in findings), default=0)
    lines: list[str] = []
    for group in GROUPS:
        members = [finding for finding in findings if finding.group == group]
        if members:
            lines.append(group)
        for finding in members:
            wanted = f"  (wanted: {finding.wanted})" if finding.wanted else ""
            line = f"  {marks[finding.level]} {finding.name:<{width}}  {finding.seen}{wanted}"
            lines += _broken(line, width + 9, columns) if 0 < columns < len(line) else [line]
            if finding.fix and finding.level != "good":
                lines.append(f"       {'':<{width}}  fix: {finding.fix}")
    return lines


def _broken(line: str, column: int, columns: int) -> list[str]:
    """Break a line at its spaces; what follows begins at a column, where there is room for it."""
    hang = " " * min(column, columns // 2)
    return textwrap.wrap(
        line, columns, subsequent_indent=hang, break_long_words=False, break_on_hyphens=False
    )
