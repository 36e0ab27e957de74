"""One file of a lock: a conda package or a wheel, named by address and digest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote, urlsplit

ArtifactKind = Literal["conda", "wheel"]


@dataclass(frozen=True, slots=True, order=True)
class Artifact:
    """A file that the lock pins and an installer needs."""

    kind: ArtifactKind
    """``conda`` (``.conda``, ``.tar.bz2``) or ``wheel``."""
    name: str
    """The package's name as the lock spells it."""
    version: str
    """The package's version."""
    url: str
    """The address the lock names; mirrors may serve it from elsewhere."""
    sha256: str | None
    """Lower-case hex; ``None`` where the lock states none."""
    size: int | None = None
    """Bytes, or ``None`` where the lock doesn't say."""
    build: str = ""
    """Conda's build string; empty for wheels."""
    subdir: str = ""
    """Conda's platform folder (``linux-64``, ``noarch``); empty for wheels."""
    index: str | None = None
    """The index page a wheel came from, where the lock names it."""
    md5: str | None = None
    """Lower-case hex, where the lock states no sha256: old channels and indexes have no other."""

    @property
    def pinned(self) -> str | None:
        """The digest by which the lock fixes the content, ``md5:`` before an md5; ``None``: nothing does.

        Without one it is carried only where the user allowed it.
        """
        return self.sha256 or (f"md5:{self.md5}" if self.md5 else None)

    @property
    def filename(self) -> str:
        """The last part of the address, decoded."""
        return unquote(urlsplit(self.url).path).rsplit("/", 1)[-1]

    @property
    def label(self) -> str:
        """``name-version`` as messages show it."""
        return f"{self.name}-{self.version}"

    @property
    def is_in_folder(self) -> bool:
        """Whether it is a conda package of a channel in a folder, locked at a ``file://`` address."""
        return self.kind == "conda" and urlsplit(self.url).scheme == "file"
