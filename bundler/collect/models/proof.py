"""One proof of a model under way: what was read of it, and all that is wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bundler.collect.models.small_files import SMALL_LIMIT, decode, wrong_kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bundler.collect.models.reader import Reader
    from bundler.safetensors import Header

SHOWN = 12
"""Findings of one kind that are listed before the rest is counted."""


@dataclass
class Proof:
    """One proof under way: what was read, and all that is wrong."""

    reader: Reader
    sizes: Mapping[str, int]
    findings: list[str] = field(default_factory=list)
    headers: dict[str, Header] = field(default_factory=dict)
    contradictions: int = 0
    """How many of the findings are of an index that contradicts shards which are whole themselves."""
    broken: set[str] = field(default_factory=set)
    """Files that were named as broken."""
    parsed: dict[str, dict[str, Any]] = field(default_factory=dict)

    def say(self, lines: Iterable[str], more: str) -> None:
        """Add findings of one kind, the first of them in full."""
        every = list(lines)
        self.findings += every[:SHOWN]
        if len(every) > SHOWN:
            self.findings.append(f"… and {len(every) - SHOWN} more {more}")

    def json(self, path: str) -> dict[str, Any]:
        """Return a JSON object, or an empty one where the file is absent or broken."""
        if path not in self.parsed:
            data = self.bytes(path)
            value, problem = decode(data) if data is not None else ({}, None)
            if problem is not None:
                self.spoil(path, wrong_kind(data or b"") or problem)
            self.parsed[path] = value
        return self.parsed[path]

    def bytes(self, path: str) -> bytes | None:
        """Return a small file's bytes; ``None`` where it is absent, known to be broken, or too long."""
        if path not in self.sizes or path in self.broken:
            return None
        if self.sizes[path] > SMALL_LIMIT:
            self.spoil(path, f"is {self.sizes[path]} bytes long: no such file of a model is")
            return None
        return self.reader.read(path, 0, self.sizes[path])

    def spoil(self, path: str, problem: str) -> None:
        """Add a finding of a file that nothing else is to be said of."""
        self.broken.add(path)
        self.findings.append(f"{path} {problem}")
