"""The files of a model as its source lists them, before any is fetched."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bundler.common.units import size_text
from bundler.errors import DamagedError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bundler.model import FileSelection

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
"""Endings of checkpoints that run code when they are loaded."""
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


SPARE = (
    "consolidated*.safetensors",
    "consolidated*.safetensors.index.json",
    "*.fp16.safetensors",
    "*.fp32.safetensors",
    "*.safetensors.index.fp16.json",
    "original/*",
    "metal/*",
    "onnx/*",
    "openvino/*",
    "coreml/*",
    "*.gguf",
    "*.onnx",
    "*.h5",
    "*.msgpack",
)
"""The same weights in formats that the server doesn't load where the root has safetensors."""


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

    @property
    def left_out_text(self) -> str:
        """Say what was left out; empty where nothing was."""
        if not self.left_out:
            return ""
        names = ", ".join(file.path for file in self.left_out)
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
    allow_pickle: bool = False,
    all_files: bool = False,
) -> Listing:
    """Return a listing with the files that the manifest wants.

    Pickles beside safetensors are left out: SGLang wouldn't load them, and they would only take room. So are
    the publisher's own formats of the same weights, unless ``files.include`` names what is wanted.

    :param where: the source, for messages.
    :param all_files: whether nothing of that is left out.
    :raises InputError: nothing is left.
    :raises DamagedError: naming each path that would leave the model's folder or that two systems read
        differently.
    """
    wanted = [file for file in listing.files if is_wanted(file.path, selection)]
    left_out = [] if all_files else _not_loaded(wanted, selection, allow_pickle=allow_pickle)
    wanted = [file for file in wanted if file not in left_out]
    if not wanted:
        raise InputError(
            "the model has no file that its manifest wants",
            hint="look at files.include and files.exclude in the manifest",
            findings=[f"there is: {file.path}" for file in listing.files[:10]],
        )
    findings = [f"{file.path!r}" for file in sorted(wanted) if not _safe(file.path)]
    if findings:
        raise DamagedError(
            "the source lists files that can't be carried: they point outside, or their names are unsafe",
            where=where,
            hint="exclude them in the manifest's files.exclude, or ask the publisher",
            findings=findings[:20],
        )
    return replace(listing, files=tuple(sorted(wanted)), left_out=tuple(sorted(left_out)))


def _not_loaded(
    wanted: Sequence[ListedFile], selection: FileSelection, *, allow_pickle: bool
) -> list[ListedFile]:
    """Return the weights that the server doesn't load beside those that it does."""
    safetensors = {file.path for file in wanted if file.path.endswith(".safetensors")}
    left_out = [file for file in wanted if file.path.endswith(PICKLES)] if not allow_pickle else []
    if selection.include == ("*",):
        loaded = [path for path in safetensors if "/" not in path and not _is_spare(path)]
        left_out += [file for file in wanted if loaded and _is_spare(file.path) and file not in left_out]
    return left_out if safetensors else []


def is_wanted(path: str, selection: FileSelection) -> bool:
    """Return whether the manifest wants a file; what hubs and their clients leave beside is never wanted."""
    return _matches(path, selection.include) and not (is_stranger(path) or _matches(path, selection.exclude))


def _is_spare(path: str) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in SPARE)


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
