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
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import unquote_to_bytes, urlsplit

from bundler.common.digest import digests_of, sha256_of
from bundler.common.progress import SILENT
from bundler.common.tables import Table
from bundler.common.threads import each
from bundler.errors import InputError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from bundler.artifact import Artifact
    from bundler.common.progress import Reporter

NAME = ".pkg-cache"
"""The store's folder in a workspace or an installation."""
MIRROR = "mirror"
MEMORY = "bundler"
BY_MD5 = "by-md5"
"""In the memory: md5 and sha256 of files that the lock fixes by an md5 alone, as they were fetched."""
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

_Checked: TypeAlias = "tuple[Artifact, list[int | str], str | None]"
"""A file, what tells that it wasn't touched since, and its sha256 where it is whole."""


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

        An artifact that the lock fixes by no digest is whole where a finished download left it.
        """
        return self.has(artifact) and (artifact.pinned is None or self._sha256_if_whole(artifact) is not None)

    def sha256(self, artifact: Artifact) -> str | None:
        """Return the lock's sha256 or, where it states an md5 alone, that of the bytes which had this md5.

        ``None`` where neither is known.
        """
        row = self.table(BY_MD5).get(self.relative(artifact.url)) if artifact.md5 else None
        recorded = str(row[1]) if isinstance(row, list) and len(row) == 2 and row[0] == artifact.md5 else None
        return artifact.sha256 or recorded

    def _sha256_if_whole(
        self,
        artifact: Artifact,
        advance: Callable[[int], None] | None = None,
        stop: threading.Event | None = None,
    ) -> str | None:
        """Return the sha256 of an artifact's file where that has the digest which is known of it."""
        path, known = self.path(artifact.url), self.sha256(artifact)
        if known is not None:
            return known if sha256_of(path, advance, stop) == known else None
        found = digests_of(path, ("sha256", "md5"), advance, stop)
        return found["sha256"] if found["md5"] == artifact.md5 else None

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
            and artifact.pinned is not None
            and (deep or verified.get(self.relative(artifact.url)) != self._state(artifact))
        ]
        damaged = self._damaged(unknown, verified, threads, reporter)
        return [artifact for artifact in wanted if artifact.url in absent or artifact.url in damaged]

    def record(self, whole: Mapping[Artifact, str]) -> None:
        """Remember that these files were hashed just now and are whole.

        :param whole: the sha256 of each.
        """
        pinned = {self.relative(one.url): self._state(one) for one in whole if one.pinned}
        self.table("verified").update(pinned)
        self._record_sha256(whole)

    def _record_sha256(self, whole: Mapping[Artifact, str]) -> None:
        rows: dict[str, list[int | str]] = {
            self.relative(one.url): [one.md5, sha256] for one, sha256 in whole.items() if one.md5
        }
        self.table(BY_MD5).update(rows)

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
        return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, artifact.pinned or ""]

    def _damaged(
        self, artifacts: list[Artifact], verified: Table, threads: int | None, reporter: Reporter
    ) -> set[str]:
        """Hash files, remember the whole ones, return the addresses of the others."""
        if not artifacts:
            return set()
        sizes = sum(self.path(artifact.url).stat().st_size for artifact in artifacts)
        whole: dict[Artifact, str] = {}
        states: dict[str, list[int | str]] = {}
        damaged = set()
        with reporter.phase("check", sizes) as meter:

            def check(artifact: Artifact, stop: threading.Event) -> _Checked:
                before = self._state(artifact)
                sha256 = self._sha256_if_whole(artifact, meter.advance, stop)
                return artifact, before, sha256 if before == self._state(artifact) else None

            checked = each(check, artifacts, threads=threads or min(8, os.cpu_count() or 1))
            for artifact, state, sha256 in checked:
                if sha256 is None:
                    damaged.add(artifact.url)
                else:
                    whole[artifact] = sha256
                    states[self.relative(artifact.url)] = state
        verified.update(states)
        self._record_sha256(whole)
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
