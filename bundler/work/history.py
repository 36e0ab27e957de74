"""What an installation's generations are, and how each came to count."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from bundler import generations
from bundler.generations import FIRST, SHARED, Step
from bundler.installation import Installation

if TYPE_CHECKING:
    from pathlib import Path


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """One that can be switched to."""

    number: int
    current: bool
    root: str
    """Its folder."""
    bundles: tuple[str, ...]
    """The names of those it was made of, oldest first."""
    environments: tuple[str, ...]
    models: tuple[str, ...]
    own_bytes: int
    """Bytes on the disk that no other generation shares, by links; clones count as its own."""


class History(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    installation: str
    generations: tuple[Generation, ...]
    steps: tuple[Step, ...]
    """Oldest first."""


def history(home: Path) -> History:
    """Read the generations and what was done.

    :raises InputError: a receipt or the record can't be read.
    """
    known = generations.read(home)
    found = []
    for number in known.whole:
        one = Installation(generations.root_of(home, number), follow=False)
        found.append(
            Generation(
                number=number,
                current=number == known.current,
                root=str(one.root),
                bundles=tuple(bundle.name for bundle in one.receipt.bundles),
                environments=tuple(one.environments),
                models=tuple(one.models),
                own_bytes=_own_bytes(one.root, number),
            )
        )
    return History(installation=str(home), generations=tuple(found), steps=known.steps)


def _own_bytes(root: Path, number: int) -> int:
    """Count files that have one name only: those with more are another generation's or a cache's too."""
    total = 0
    for folder, names, files in os.walk(root):
        if number == FIRST and folder == str(root):
            names[:] = [name for name in names if name not in SHARED]
        for name in files:
            status = os.lstat(f"{folder}/{name}")
            total += status.st_blocks * 512 if status.st_nlink == 1 else 0
    return total
