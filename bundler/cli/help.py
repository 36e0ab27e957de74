"""How help is laid out: by the terminal's width, down to 40 columns."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterable

LONGEST = 108
"""Columns beyond which lines are hard to read."""
NARROW = 60
"""Columns from which options and what they do stand side by side with room for both."""


def help_width() -> int:
    """Return the columns that help is written in; click itself goes no narrower than 50."""
    return max(min(shutil.get_terminal_size().columns - 2, LONGEST), 20)


class _Formatter(click.HelpFormatter):
    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Write a list of terms; in a narrow terminal a long one stands above what it means."""
        super().write_dl(rows, col_max if self.width >= NARROW else self.width // 4, col_spacing)


class HelpContext(click.Context):
    """A context whose help fits narrow terminals."""

    formatter_class = _Formatter
