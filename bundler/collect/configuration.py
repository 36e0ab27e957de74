"""pixi's own configuration, as far as it says where files come from: mirrors and credentials."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import tomli

from bundler.common.broken import BROKEN_TEXT
from bundler.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

FETCHABLE = ("http", "https", "file")
T = TypeVar("T")


@dataclass(frozen=True)
class Configuration:
    """What pixi's configuration files say together."""

    mirrors: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Prefixes with the addresses that stand for them; the longest path first, as pixi looks them up."""
    authentication_file: Path | None = None
    """``authentication-override-file``."""

    def candidates(self, url: str) -> tuple[str, ...]:
        """Return the addresses to try for an address: its mirrors in their order, else itself.

        As with pixi, the address itself is not tried where mirrors stand for it.

        :raises InputError: there are only mirrors of a kind that bundler doesn't fetch from, as ``oci://``.
        """
        normal = _normal(url)
        for prefix, targets in self.mirrors:
            if normal.startswith(prefix):
                rest = normal[len(prefix) :].lstrip("/")
                usable = tuple(target + rest for target in targets if urlsplit(target).scheme in FETCHABLE)
                if usable:
                    return usable
                raise InputError(
                    f"the mirrors of {prefix} can't be used: {', '.join(targets) or 'none are named'}",
                    hint="bundler fetches from http://, https:// and file://; add such a mirror to pixi's "
                    "[mirrors]",
                )
        return (url,)


def load_configuration(workspace: Path | None = None) -> Configuration:
    """Read pixi's configuration with pixi's precedence.

    ``/etc/pixi``, ``$XDG_CONFIG_HOME/pixi`` and ``$PIXI_HOME`` (``~/.pixi``), or ``PIXI_CONFIG_FILE`` instead
    of these three, or none of them with ``PIXI_NO_CONFIG``; then the workspace's ``.pixi/config.toml``. What
    comes later wins, one mirror's prefix at a time.

    :param workspace: the folder with pixi.toml.
    :raises InputError: a file is broken, or the one that ``PIXI_CONFIG_FILE`` names isn't there.
    """
    mirrors: dict[str, tuple[str, ...]] = {}
    authentication: Path | None = None
    for path, named_by in _files(workspace):
        what, broken = "pixi's configuration", BROKEN_TEXT
        table = read_optional(path, _read_toml, what=what, named_by=named_by, broken=broken) or {}
        for prefix, targets in _mirrors(table, path):
            mirrors[prefix] = targets
        if isinstance(named := table.get("authentication-override-file"), str):
            authentication = Path(named).expanduser()
    longest_first = sorted(mirrors.items(), key=lambda row: -len(urlsplit(row[0]).path))
    return Configuration(tuple(longest_first), authentication)


def _files(workspace: Path | None) -> Iterator[tuple[Path, str | None]]:
    environment = os.environ
    home = Path(environment.get("HOME") or Path.home())
    if named := environment.get("PIXI_CONFIG_FILE"):
        yield Path(named), "PIXI_CONFIG_FILE"
    elif environment.get("PIXI_NO_CONFIG", "").lower() not in ("1", "true", "yes", "on", "t", "y"):
        settings = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
        yield Path("/etc/pixi/config.toml"), None
        yield settings / "pixi" / "config.toml", None
        yield Path(environment.get("PIXI_HOME") or home / ".pixi") / "config.toml", None
    if workspace is not None:
        yield workspace / ".pixi" / "config.toml", None


def read_optional(
    path: Path,
    read: Callable[[Path], T],
    *,
    what: str,
    named_by: str | None,
    broken: tuple[type[Exception], ...],
) -> T | None:
    """Return what a file says that needs not be there, or ``None`` where it isn't.

    :param named_by: the variable that names the file, which then must be there.
    :param broken: what ``read`` raises of a file that isn't of its form.
    :raises InputError: it can't be read, or isn't there though it is named.
    """
    try:
        return read(path)
    except (FileNotFoundError, NotADirectoryError) as problem:
        if named_by is None:
            return None
        raise InputError(
            f"the file that {named_by} names isn't there", where=path, hint="unset it, or mend it"
        ) from problem
    except OSError as problem:
        raise InputError(f"{what} can't be read: {problem.strerror}", where=path) from problem
    except broken as problem:
        raise InputError(f"{what} is broken: {problem}", where=path) from problem


def _read_toml(path: Path) -> dict[str, Any]:
    return tomli.loads(path.read_text(encoding="utf-8"))


def _mirrors(table: Mapping[str, Any], path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    mirrors = table.get("mirrors", {})
    if not isinstance(mirrors, dict):
        raise InputError("[mirrors] of pixi's configuration is not a table", where=path)
    for prefix, targets in mirrors.items():
        if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
            raise InputError(
                f"[mirrors] of pixi's configuration: {prefix!r} needs a list of addresses", where=path
            )
        yield _folder(prefix), tuple(_folder(target) for target in targets)


def _folder(url: str) -> str:
    """Return an address as a prefix: normalised, with a slash at its end."""
    normal = _normal(url)
    return normal if normal.endswith("/") else normal + "/"


def _normal(url: str) -> str:
    """Return an address with scheme and host in lower case and without its scheme's own port."""
    try:
        parts = urlsplit(url)
        default = {"http": 80, "https": 443}.get(parts.scheme)
        host = (parts.hostname or "").lower()
        host = f"[{host}]" if ":" in host else host
        port = f":{parts.port}" if parts.port and parts.port != default else ""
    except ValueError as problem:
        raise InputError(f"not an address: {url!r} ({problem})") from problem
    user = parts.netloc.rpartition("@")[0]
    place = f"{user}@{host}{port}" if user else host + port
    return parts._replace(netloc=place, path=parts.path or "/").geturl()
