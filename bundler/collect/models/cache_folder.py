"""Hugging Face's cache: ``models--OWNER--NAME`` with ``refs``, ``blobs``, and ``snapshots/REV`` of links."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bundler.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path


def snapshot_of(folder: Path) -> Path:
    """Return the snapshot that a cached model's folder means; any other folder as it is.

    :raises InputError: it has none, or several and ``refs/main`` names none of them.
    """
    if not _is_cached(folder):
        return folder
    snapshots = sorted(path for path in (folder / "snapshots").iterdir() if path.is_dir())
    main = folder / "refs/main"
    named = main.read_text("utf-8", "replace").strip() if main.is_file() else ""
    chosen = [path for path in snapshots if path.name == named] or snapshots
    if len(chosen) != 1:
        raise InputError(
            "the Hugging Face cache holds no one snapshot that could be meant",
            where=folder,
            hint="name one: --model …/snapshots/REVISION",
            findings=[path.name for path in chosen[:10]],
        )
    return chosen[0]


def cached_model(folder: Path) -> Path | None:
    """Return the ``models--…`` folder that a snapshot belongs to: its links may lead anywhere in it."""
    above = folder.resolve()
    if above.parent.name == "snapshots" and _is_cached(above.parent.parent):
        return above.parent.parent
    return None


def _is_cached(folder: Path) -> bool:
    return folder.resolve().name.startswith("models--") and (folder / "snapshots").is_dir()
