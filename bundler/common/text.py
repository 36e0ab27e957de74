"""Text that others wrote, on its way to a terminal or into a tree."""

from __future__ import annotations

import unicodedata

_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Marks that turn the direction of what follows: a name can look like another by them."""


def has_controls(text: str) -> bool:
    """Tell whether a text commands a terminal or hides what it is.

    That is: a control character (C0, DEL, C1), a line or paragraph separator, or a mark of direction.
    """
    return any(unicodedata.category(letter) in ("Cc", "Zl", "Zp") or letter in _BIDI for letter in text)


LONGEST_LINE = 4000
"""Letters of a line that are shown: a path has no more, and a page of one letter helps nobody."""


def printable(text: str) -> str:
    """Return a text fit for a terminal: its lines and tabs stay, all else that isn't shown becomes ``?``.

    What goes on for longer than any path is cut.
    """
    return "\n".join(map(_shown, text.split("\n")))


def _shown(line: str) -> str:
    cut = line if len(line) <= LONGEST_LINE else line[:LONGEST_LINE] + "…"
    return "".join(letter if letter.isprintable() or letter == "\t" else "?" for letter in cut)
