"""The files of a model as its source lists them, before any is fetched."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bundler.collect.models.index import named_files
from bundler.collect.models.loaded_weights import (
    INDEX,
    PICKLES,
    grouped,
    loaded_weights,
    not_loaded,
    wants_index,
)
from bundler.collect.models.other_kinds import other_kind
from bundler.collect.models.small_files import SMALL_LIMIT
from bundler.common.units import size_text
from bundler.errors import DamagedError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from bundler.model import FileSelection

NEVER = (
    ".git",
    ".cache",
    ".gitattributes",
    ".gitignore",
    "._*",
    ".msc",
    ".mdl",
    ".mv",
    ".DS_Store",
    "desktop.ini",
    "Thumbs.db",
    "__MACOSX",
)
"""Files and folders that hubs, their clients and file managers leave beside a model's own, at any depth."""


@dataclass(frozen=True, slots=True, order=True)
class ListedFile:
    """One file that a source promises."""

    path: str
    """Relative to the model's folder, with ``/``."""
    size: int
    """Bytes."""
    sha256: str | None = None
    """The publisher's; ``None`` where it doesn't say."""
    git_sha1: str | None = None
    """The git blob id, where the hub gives that and no sha256 (Hugging Face's small files)."""


@dataclass(frozen=True, slots=True)
class Listing:
    """All wanted files of a model at one revision."""

    files: tuple[ListedFile, ...]
    """By path."""
    revision: str | None = None
    """The commit that the files belong to; ``None`` for a folder that doesn't tell."""
    left_out: tuple[ListedFile, ...] = ()
    """Weights that the server doesn't load, as safetensors files are there."""
    loaded: tuple[str, ...] = ()
    """Paths of the weights that the server loads, as far as names and index tell."""

    @property
    def left_out_text(self) -> str:
        """Say what was left out; empty where nothing was."""
        if not self.left_out:
            return ""
        names = ", ".join(grouped(file.path for file in self.left_out))
        size = size_text(sum(file.size for file in self.left_out))
        return f"left out, as the server doesn't load them: {names} ({size}; --all-files carries them)"

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def sizes(self) -> dict[str, int]:
        """Return each file's size by its path."""
        return {file.path: file.size for file in self.files}


def select(
    listing: Listing,
    selection: FileSelection,
    *,
    where: object,
    read: Callable[[ListedFile], bytes],
    allow_pickle: bool = False,
    all_files: bool = False,
) -> Listing:
    """Return a listing with the files that the manifest wants.

    Pickles beside safetensors are left out: SGLang wouldn't load them, and they would only take room. So are
    the publisher's other formats of the same weights, shards that the index doesn't name, and adapters,
    unless ``files.include`` names what is wanted.

    :param where: the source, for messages.
    :param read: returns a file's bytes; called for the index alone, where names don't tell what is loaded.
    :param all_files: whether nothing of that is left out.
    :raises InputError: nothing is left, or it is no model that is served: an adapter, GGUF, pickles.
    :raises DamagedError: naming each path that would leave the model's folder or that two systems read
        differently.
    """
    wanted = [file for file in listing.files if is_wanted(file.path, selection)]
    paths = {file.path for file in wanted}
    if (kind := other_kind(paths, allow_pickle=allow_pickle)) is not None:
        raise InputError(kind[0], where=where, hint=kind[1])
    index = _index(wanted, read) if wants_index(paths) else ()
    spare = set[str]()
    if not all_files:
        spare = _spare(paths, index, chosen=selection.include != ("*",), allow_pickle=allow_pickle)
    left_out = tuple(sorted(file for file in wanted if file.path in spare))
    wanted = [file for file in wanted if file.path not in spare]
    if not wanted:
        raise InputError(
            "the model has no file that its manifest wants",
            hint="look at files.include and files.exclude in the manifest",
            findings=[f"there is: {file.path}" for file in listing.files[:10]],
        )
    _check_paths(wanted, where)
    loaded = loaded_weights(paths - spare, index)
    return replace(listing, files=tuple(sorted(wanted)), left_out=left_out, loaded=loaded)


def _index(wanted: Iterable[ListedFile], read: Callable[[ListedFile], bytes]) -> tuple[str, ...]:
    file = next(file for file in wanted if file.path == INDEX)
    return named_files(read(file)) if file.size <= SMALL_LIMIT else ()


def _spare(paths: Collection[str], index: Collection[str], *, chosen: bool, allow_pickle: bool) -> set[str]:
    """Return the files that the server doesn't load beside those that it does."""
    if not any(path.endswith(".safetensors") for path in loaded_weights(paths, index)):
        return set()
    pickles = set() if allow_pickle else {path for path in paths if path.endswith(PICKLES)}
    return pickles if chosen else pickles | not_loaded(paths, index)


def _check_paths(wanted: Iterable[ListedFile], where: object) -> None:
    findings = [f"{file.path!r}" for file in sorted(wanted) if not _safe(file.path)]
    if findings:
        raise DamagedError(
            "the source lists files that can't be carried: they point outside, or their names are unsafe",
            where=where,
            hint="exclude them in the manifest's files.exclude, or ask the publisher",
            findings=findings[:20],
        )


def is_wanted(path: str, selection: FileSelection) -> bool:
    """Return whether the manifest wants a file; what hubs and their clients leave beside is never wanted."""
    return _matches(path, selection.include) and not (is_stranger(path) or _matches(path, selection.exclude))


def is_stranger(path: str) -> bool:
    """Return whether a file, or a folder above it, was left by a hub's client or a file manager."""
    return any(fnmatch.fnmatchcase(part, pattern) for part in path.split("/") for pattern in NEVER)


def _matches(path: str, patterns: Iterable[str]) -> bool:
    """Return whether a path matches one of glob patterns, as a whole or by its last part."""
    names = (path, path.rpartition("/")[2])
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns for name in names)


def _safe(path: str) -> bool:
    parts = path.split("/")
    if any(part in ("", ".", "..") or len(part.encode("utf-8", "surrogatepass")) > 240 for part in parts):
        return False
    return not re.search(r"[\x00-\x1f\x7f\\\ud800-\udfff]", path)
