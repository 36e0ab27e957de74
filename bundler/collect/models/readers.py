"""How the proof of completeness reads a model: a folder, or a hub by Range."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from bundler.collect.models.listing import Listing


class Reader(Protocol):
    """Sizes of all files, and bytes of any."""

    @property
    def where(self) -> str:
        """The place, for messages."""

    def sizes(self) -> dict[str, int]:
        """Return each file's size in bytes by its path."""

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Return bytes of a file; fewer at its end."""

    def interrupt(self) -> None:
        """End every reading now, also one that waits for a host."""


class FolderReader:
    """A folder on this host: the files that a listing wants, as far as they are there."""

    def __init__(self, root: Path, listing: Listing) -> None:
        """Read a listing's files below ``root``."""
        self._root = root
        self._paths = [file.path for file in listing.files]

    @property
    def where(self) -> str:
        """The folder."""
        return str(self._root)

    def sizes(self) -> dict[str, int]:
        """Return the sizes that the disk tells."""
        found = {}
        for path in self._paths:
            try:
                found[path] = (self._root / path).stat().st_size
            except FileNotFoundError:
                continue
        return found

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Read from the disk."""
        with (self._root / path).open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def interrupt(self) -> None:
        """Do nothing: a disk answers."""
