"""What goes into a bundle: one member for each entry of the target tree, and where its bytes come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from bundler.manifest import EntryKind


class Source(Protocol):
    """Where a file's bytes come from: the disk, or a hub while it is being downloaded."""

    @property
    def fingerprint(self) -> str:
        """What tells this content from another without reading it; compared when a pack is resumed."""

    def open(self) -> AbstractContextManager[BinaryIO]:
        """Open the content for one sequential read."""


@dataclass(frozen=True, slots=True)
class FileSource:
    """A file on this host."""

    path: Path

    @property
    def fingerprint(self) -> str:
        """Size and modification time."""
        status = self.path.stat()
        return f"{status.st_size}:{status.st_mtime_ns}"

    def open(self) -> AbstractContextManager[BinaryIO]:
        """Open the file."""
        return self.path.open("rb", buffering=0)


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of the target tree, before it is written."""

    path: str
    """As in :class:`bundler.manifest.Entry`."""
    kind: EntryKind
    size: int = 0
    executable: bool = False
    sha256: str | None = None
    """What the lock or the publisher promises; checked while the file is read. ``None``: nobody said."""
    source: Source | None = None
    """Set for files."""
    target: str = ""
    """Set for links."""
