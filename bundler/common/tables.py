"""Small tables of what was found out before and is cheap to find out again: JSON, keyed by a string.

A table that is lost, damaged or can't be written costs time only, so none of these is an error.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bundler.common.broken import BROKEN_JSON

if TYPE_CHECKING:
    from collections.abc import Mapping

Value = int | float | str | list[int | str]


class Table:
    """A file with one JSON object. Reads once; each update is written at once, in one step."""

    def __init__(self, path: Path) -> None:
        """Keep the path; the file needs not be there."""
        self._path = path
        self._rows: dict[str, Value] | None = None

    def get(self, key: str) -> Value | None:
        """Return what is known of a key."""
        return self._read().get(key)

    def update(self, rows: Mapping[str, Value]) -> None:
        """Add or replace rows; what another process wrote meanwhile is kept."""
        if not rows:
            return
        self._rows = None
        merged = {**self._read(), **rows}
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._path.parent, delete=False) as file:
                file.write(msgspec.json.encode(merged))
            Path(file.name).replace(self._path)
        self._rows = merged

    def _read(self) -> dict[str, Value]:
        if self._rows is None:
            try:
                self._rows = msgspec.json.decode(self._path.read_bytes(), type=dict[str, Value])
            except (OSError, *BROKEN_JSON):
                self._rows = {}
        return self._rows
