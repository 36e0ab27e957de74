"""How a model's files are read, wherever they are: sizes of all, and bytes of any."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from bundler.collect.models.listing import Listing


@dataclass
class Reader:
    """Sizes of all files, and bytes of any."""

    where: str
    """The place, for messages."""
    sizes: Mapping[str, int]
    """Bytes of each file, by its path."""
    read: Callable[[str, int, int], bytes]
    """Returns so many bytes of a file from a place on; fewer at its end."""
    interrupt: Callable[[], None] = lambda: None
    """Ends every reading now, also one that waits for a host."""


def folder_reader(root: Path, listing: Listing) -> Reader:
    """Return how a folder is read: the files that a listing wants, as far as they are there."""

    def read(path: str, offset: int, length: int) -> bytes:
        with (root / path).open("rb") as file:
            file.seek(offset)
            return file.read(length)

    there = [file.path for file in listing.files if (root / file.path).exists()]
    return Reader(str(root), {path: (root / path).stat().st_size for path in there}, read)
