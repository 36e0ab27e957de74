"""The store: ``.pkg-cache``, the artifacts of the lock by their address, and the team's cache folders.

::

    .pkg-cache/
      mirror/<host>/<path>         artifacts as they were downloaded: what a bundle carries
      conda/rattler  pypi/uv  pypi/pip  pixi  xdg      the tools' own caches, in the team's layout
      bundler/                     what bundler remembers of the store; safe to delete
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes, urlsplit

from bundler.common.digest import sha256_of
from bundler.common.progress import SILENT
from bundler.common.tables import Table
from bundler.common.threads import each
from bundler.errors import InputError

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable
    from pathlib import Path

    from bundler.artifact import Artifact
    from bundler.common.progress import Reporter

NAME = ".pkg-cache"
"""The store's folder in a workspace or an installation."""
MIRROR = "mirror"
MEMORY = "bundler"
FETCH_LOCK = "fetch.lock"
"""In the memory: held by whoever fills the store or takes something out of it."""
CACHES = {
    "RATTLER_CACHE_DIR": "conda/rattler",
    "UV_CACHE_DIR": "pypi/uv",
    "PIP_CACHE_DIR": "pypi/pip",
    "PIXI_CACHE_DIR": "pixi",
    "XDG_CACHE_HOME": "xdg",
}
"""The team's layout: each tool's variable and its folder."""
LONGEST_NAME = 255 - len(".partial.origin")
"""Bytes of a file name on common file systems, less the endings of a download under way."""
REFILL = "unpack the bundle again; on the online host: bundler fetch"
"""The way out where an artifact is missing or damaged."""


@dataclass(frozen=True)
class Store:
    """The folder ``.pkg-cache`` of a workspace or an installation."""

    root: Path

    @classmethod
    def of(cls, workspace: Path) -> Store:
        """Return the store of a workspace or an installation."""
        return cls(workspace / NAME)

    def relative(self, url: str) -> str:
        """Return an address's place under the store: ``mirror/<host>/<decoded path>``.

        A port becomes ``host_8080``; an IPv6 address loses its brackets and colons. Query, fragment and
        credentials take no part. A ``file://`` address becomes ``mirror/file/<digest of its folder>/<name>``,
        so that no path of this machine travels.

        :raises InputError: the address leaves its folder, or is none.
        """
        scheme, host, path = _split(url)
        parts = [_decoded(part, url) for part in path.split("/") if part]
        if not parts or (scheme != "file" and not host):
            raise InputError(f"not an address of a file: {url!r}")
        if scheme == "file":
            folder = hashlib.sha256("/".join(parts[:-1]).encode()).hexdigest()[:16]
            return "/".join((MIRROR, "file", folder, parts[-1]))
        return "/".join((MIRROR, host, *parts))

    def path(self, url: str) -> Path:
        """Return where an address's file lies, whether it is there or not."""
        return self.root / self.relative(url)

    def tree_path(self, url: str) -> str:
        """Return an address's place in a bundle's tree and in an installation."""
        return f"{NAME}/{self.relative(url)}"

    @property
    def memory(self) -> Path:
        """Where bundler remembers what it knows of the store."""
        return self.root / MEMORY

    def table(self, name: str) -> Table:
        """Return one of the small tables in :attr:`memory`."""
        return Table(self.memory / f"{name}.json")

    def has(self, artifact: Artifact) -> bool:
        """Say whether the artifact's file is there in its size; a look, no check."""
        try:
            status = self.path(artifact.url).stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        return stat.S_ISREG(status.st_mode) and artifact.size in (None, status.st_size)

    def verify(self, artifact: Artifact) -> bool:
        """Say whether the artifact's file is there, whole: size and sha256 are read from the disk.

        An artifact without a sha256 is whole where a finished download left it.
        """
        if not self.has(artifact):
            return False
        return artifact.sha256 is None or sha256_of(self.path(artifact.url)) == artifact.sha256

    def missing(
        self,
        artifacts: Iterable[Artifact],
        *,
        deep: bool = False,
        threads: int | None = None,
        reporter: Reporter = SILENT,
    ) -> list[Artifact]:
        """Return the artifacts that have to be fetched: absent or damaged ones, in the order given.

        A file that was hashed before and has the size and times it had then isn't hashed again.

        :param deep: hash every file again.
        """
        wanted = list({artifact.url: artifact for artifact in artifacts}.values())
        verified = self.table("verified")
        absent = {artifact.url for artifact in wanted if not self.has(artifact)}
        unknown = [
            artifact
            for artifact in wanted
            if artifact.url not in absent
            and artifact.sha256 is not None
            and (deep or verified.get(self.relative(artifact.url)) != self._state(artifact))
        ]
        damaged = self._damaged(unknown, verified, threads, reporter)
        return [artifact for artifact in wanted if artifact.url in absent or artifact.url in damaged]

    def record(self, artifacts: Iterable[Artifact]) -> None:
        """Remember that these files were hashed just now and are whole."""
        verified = self.table("verified")
        verified.update(
            {self.relative(artifact.url): self._state(artifact) for artifact in artifacts if artifact.sha256}
        )

    def cache_environment(self) -> dict[str, str]:
        """Return the variables that put the tools' caches into the team's layout; absolute paths."""
        return {variable: str(self.root.absolute() / folder) for variable, folder in CACHES.items()}

    def make_folders(self) -> None:
        """Make the folders that :meth:`cache_environment` names."""
        for folder in CACHES.values():
            (self.root / folder).mkdir(parents=True, exist_ok=True)

    def _state(self, artifact: Artifact) -> list[int | str]:
        status = self.path(artifact.url).stat()
        # The change time too: it can't be set back, as a modification time can.
        return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, artifact.sha256 or ""]

    def _damaged(
        self, artifacts: list[Artifact], verified: Table, threads: int | None, reporter: Reporter
    ) -> set[str]:
        """Hash files, remember the whole ones, return the addresses of the others."""
        if not artifacts:
            return set()
        sizes = sum(self.path(artifact.url).stat().st_size for artifact in artifacts)
        whole: dict[str, list[int | str]] = {}
        damaged = set()
        with reporter.phase("check", sizes) as meter:

            def check(artifact: Artifact, stop: threading.Event) -> tuple[Artifact, list[int | str] | None]:
                before = self._state(artifact)
                digest = sha256_of(self.path(artifact.url), meter.advance, stop)
                same = digest == artifact.sha256 and before == self._state(artifact)
                return artifact, before if same else None

            for artifact, state in each(check, artifacts, threads=threads or min(8, os.cpu_count() or 1)):
                if state is None:
                    damaged.add(artifact.url)
                else:
                    whole[self.relative(artifact.url)] = state
        verified.update(whole)
        return damaged


def _split(url: str) -> tuple[str, str, str]:
    """Return scheme, host as a folder's name, and path."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError as problem:
        raise InputError(f"not an address: {url!r} ({problem})") from problem
    if parts.scheme not in ("http", "https", "file"):
        raise InputError(
            f"an address of a kind that bundler doesn't fetch: {url!r}", hint="http, https and file are known"
        )
    if ":" in host:
        host = "ip6-" + host.replace(":", "-")
    if host and not re.fullmatch(r"[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_-])?", host):
        raise InputError(f"not a host's name: {host!r} in {url!r}")
    return parts.scheme, f"{host}_{port}" if port else host, parts.path


def _decoded(part: str, url: str) -> str:
    """Return one part of an address's path as a file's name."""
    try:
        name = unquote_to_bytes(part).decode("utf-8")
    except UnicodeDecodeError as problem:
        raise InputError(f"an address that isn't UTF-8: {url!r}") from problem
    if name in (".", "..") or "/" in name or not name.isprintable() or len(name.encode()) > LONGEST_NAME:
        raise InputError(f"an address whose path can't be a file's path: {url!r}")
    return name
