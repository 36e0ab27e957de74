"""A finished bundle replaced: the new one is written beside it, and gets its folder when it is whole.

For the bundle's folder ``NAME`` that is ``NAME.replacing``; what gives way is called ``NAME.replaced`` until
it is removed. Wherever this stops, the old bundle or the new one is whole, and the next pack goes on with it.
"""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING

from bundler.archive import sums
from bundler.archive.bundle import is_bundle
from bundler.archive.media import PACK_JOURNAL, PARTIAL_SUFFIX, is_ours, listed_in
from bundler.common.durable import sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path


def beside(folder: Path) -> Path:
    """Return where the bundle is written that will replace the one in a folder."""
    return folder.with_name(f"{folder.name}.replacing")


def is_begun(folders: Sequence[Path]) -> bool:
    """Tell whether a replacement of the bundle in these folders was begun."""
    return bool(folders[0].name) and (beside(folders[0]) / PACK_JOURNAL).is_file()


def has_room(folders: Iterable[Path], needed: int, reserve: int) -> bool:
    """Tell whether a second bundle fits beside the one in these folders.

    :param needed: bytes of its volumes, at most.
    :param reserve: bytes that lie on each disk besides.
    """
    places = list(folders)
    if not all(folder.name and folder.is_dir() and not folder.is_mount() for folder in places):
        return False
    free = {folder.stat().st_dev: shutil.disk_usage(folder).free - reserve for folder in places}
    return sum(max(room, 0) for room in free.values()) >= needed


def take_place(folders: Sequence[Path]) -> None:
    """Put a bundle that is whole beside these folders in their place, and end a replacement that was cut off.

    :raises OSError: a folder can't be renamed.
    """
    if not folders[0].name:
        return
    whole = [folder for folder in folders if is_bundle(beside(folder))]
    if whole and not is_begun(folders):
        wanted = (beside(whole[0]) / sums.SUMS).read_bytes()
        for folder in folders:
            if folder not in whole and is_bundle(folder) and (folder / sums.SUMS).read_bytes() != wanted:
                _rename(folder, _replaced(folder))
        for folder in whole:
            if folder.exists():
                _rename(folder, _replaced(folder))
            _rename(beside(folder), folder)
    for folder in folders:
        _drop(_replaced(folder))
        if not is_begun(folders):
            with contextlib.suppress(OSError):
                beside(folder).rmdir()


def clear(folder: Path) -> None:
    """Remove a bundle from its folder.

    The sums go first: without them it is no bundle any more, wherever this stops.
    """
    listed = listed_in(folder)
    (folder / sums.SUMS).unlink(missing_ok=True)
    for child in [*folder.iterdir()]:
        name = child.name.removesuffix(PARTIAL_SUFFIX)
        if name != PACK_JOURNAL and (is_ours(name) or name in listed):
            child.unlink()


def _drop(folder: Path) -> None:
    if folder.is_dir():
        clear(folder)
        (folder / PACK_JOURNAL).unlink(missing_ok=True)
        # What else somebody put there stays.
        with contextlib.suppress(OSError):
            folder.rmdir()


def _replaced(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.replaced")


def _rename(folder: Path, to: Path) -> None:
    _drop(to)
    folder.rename(to)
    sync_folder(to.parent)
