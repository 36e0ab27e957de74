"""Passwords and tokens in addresses, left out of what is shown."""

from __future__ import annotations

import re

_USER = re.compile(r"(?<=://)[^/\s]*(?=@)")
_TOKEN = re.compile(r"(://[^/\s]+/t/)[^/\s]+")


def masked(text: str) -> str:
    """Return a text with ``***`` for ``user:password`` and for conda's ``/t/TOKEN`` in its addresses."""
    return _TOKEN.sub(r"\1***", _USER.sub("***", text))
