"""What messages about damage say where there is parity."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from bundler.archive import parity, sums

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bundler.archive.bundle import Bundle


def repair_command(folders: Sequence[Path]) -> str:
    """Return what mends the bundle in these folders, as one types it."""
    return " ".join(["bundler repair", *(shlex.quote(str(folder)) for folder in folders)])


def has_parity(folder: Path) -> bool:
    """Tell whether a folder holds parity volumes."""
    return any(map(sums.is_parity, (path.name for path in folder.glob("parity-*"))))


def or_repair(hint: str, folders: Sequence[Path], *, parity: bool) -> str:
    """Return a fix that also names ``bundler repair``, where there is parity."""
    return f"{hint}; or mend it by its parity: {repair_command(folders)}" if parity else hint


def parity_names(bundle: Bundle) -> list[str]:
    """Return the names of the parity volumes that a bundle must have."""
    stated = bundle.manifest.parity
    if stated is None:
        return []
    files = parity.covered_files(bundle.manifest, bundle.sums)
    return [name for group in parity.groups_of(stated, files) for name in group.names]
