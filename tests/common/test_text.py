"""What of a foreign text reaches a terminal."""

from __future__ import annotations

import pytest

from bundler.common.text import has_controls, printable


@pytest.mark.parametrize(
    "text", ["\x1b[2J", "\x9b2J", "a\ab", "a\x7f", "a\u2028b", "a\u202eb", "a\u2066b", "a\rb"]
)
def test_what_commands_a_terminal(text: str) -> None:
    """Escapes, bells, separators and marks of direction are told, and shown as question marks."""
    assert has_controls(text)
    assert not has_controls(printable(text)) and "?" in printable(text)


def test_plain_text_stays() -> None:
    """Letters of all scripts, lines and tabs."""
    text = "größe 模型\n\tx"
    assert printable(text) == text and not has_controls("größe 模型 é")
