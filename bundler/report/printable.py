"""Text out of a bundle, made fit for a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return a line without what a terminal would take for a command: each such character becomes ``?``."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
