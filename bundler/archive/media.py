"""The folders a bundle is written to: disks that are filled in turn."""

from __future__ import annotations

import errno
import os
import shutil
from typing import TYPE_CHECKING

from bundler.archive import sums
from bundler.common.disk_trouble import advice
from bundler.common.durable import make_folder, sync_folder
from bundler.errors import DamagedError, DestinationError, PreflightError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

PARTIAL_SUFFIX = ".partial"
"""What a volume's name ends with until it is whole."""
PACK_JOURNAL = ".pack-journal"
"""The journal of a pack under way, in the first folder."""

SYSTEM = frozenset({"lost+found", ".Trash-0", ".Trashes", "System Volume Information", "$RECYCLE.BIN"})
"""Names of what file systems and desktops put on a disk by themselves."""
_SPARE = 2**20


class Media:
    """Folders, in the order in which they are filled."""

    def __init__(self, folders: Sequence[Path], reserve: int) -> None:
        """Make the folders.

        :param reserve: bytes that each must keep for what lies on every one of them.
        :raises DestinationError: a folder holds other things, or can't be made.
        """
        self.folders = tuple(folders)
        self._reserve = reserve + _SPARE
        self._turn = 0
        for folder in self.folders:
            try:
                make_folder(folder)
                if not os.access(folder, os.W_OK | os.X_OK):
                    raise DestinationError("the folder for the bundle can't be written to", where=folder)
            except OSError as problem:
                raise DestinationError(
                    f"the folder for the bundle can't be made: {problem.strerror}",
                    where=folder,
                    hint=advice(problem) or "name a folder on a disk that you may write to",
                ) from problem

    def check_foreign(self, known: Collection[str]) -> None:
        """Refuse a folder with files that no bundle of ours has.

        :param known: the names of companions.
        :raises DestinationError: naming some of them.
        """
        for folder in self.folders:
            names = {child.name.removesuffix(PARTIAL_SUFFIX) for child in folder.iterdir()} - SYSTEM
            names -= {*known, *listed_in(folder)}
            others = sorted(name for name in names if not is_ours(name))
            if others:
                raise DestinationError(
                    f"the folder for the bundle holds other things: {', '.join(others[:5])}",
                    where=folder,
                    hint="name a new or empty folder",
                )

    def find(self, name: str) -> Path | None:
        """Return where a volume or its beginning lies."""
        for folder in self.folders:
            for candidate in (folder / name, folder / (name + PARTIAL_SUFFIX)):
                if candidate.is_file():
                    return candidate
        return None

    def place(self, most: int) -> Path:
        """Return the folder for the next volume: the one whose turn it is, or a later one with more room.

        :param most: bytes that the volume may take.
        """
        for turn in range(self._turn, len(self.folders)):
            if self._free(turn) >= most + self._reserve:
                self._turn = turn
                return self.folders[turn]
        # A volume that compresses well may still fit where the worst case doesn't.
        self._turn = max(range(self._turn, len(self.folders)), key=self._free)
        return self.folders[self._turn]

    def follow(self, path: Path) -> None:
        """Let the next volumes follow one that is there: disks are filled in order."""
        self._turn = max(self._turn, self.folders.index(path.parent))

    def settle(self, path: Path, whole: int) -> Path:
        """Take a volume under way to where it can be finished, and let the next ones follow it there.

        :param path: its durable beginning.
        :param whole: bytes that the volume may take in all.
        """
        self.follow(path)
        here = self.folders.index(path.parent)
        if self._free(here) >= whole - path.stat().st_size + self._reserve:
            return path
        for turn in range(max(here + 1, self._turn), len(self.folders)):
            if self._free(turn) >= whole + self._reserve:
                return self._move(path, turn)
        return path

    def _move(self, path: Path, turn: int) -> Path:
        self._turn = turn
        moved = self.folders[turn] / path.name
        shutil.copyfile(path, moved)
        with moved.open("rb") as file:
            os.fsync(file.fileno())
        sync_folder(moved.parent)
        path.unlink()
        return moved

    def another(self, full: Path, most: int) -> bool:
        """Tell whether a later folder has room for a volume that the full one couldn't take."""
        turn = self.folders.index(full)
        return any(self._free(later) >= most + self._reserve for later in range(turn + 1, len(self.folders)))

    def drop_others(self, names: Collection[str]) -> None:
        """Delete volumes, and beginnings of volumes, that are none of the named ones."""
        for folder in self.folders:
            for child in folder.iterdir():
                name = child.name.removesuffix(PARTIAL_SUFFIX)
                if sums.is_volume(name) and name not in names:
                    child.unlink()

    def drop_beginnings(self) -> None:
        """Delete what a move of a volume left when it was interrupted."""
        for folder in self.folders:
            for child in folder.glob("data-*" + PARTIAL_SUFFIX):
                child.unlink()

    def room(self, folder: Path) -> int:
        """Return the bytes that a folder takes besides what lies on every one of them."""
        return shutil.disk_usage(folder).free - self._reserve

    def _free(self, turn: int) -> int:
        return shutil.disk_usage(self.folders[turn]).free


def is_ours(name: str) -> bool:
    """Tell whether a file of a bundle may be called so."""
    fixed = {sums.MANIFEST, sums.README, sums.LOG, sums.SUMS, sums.SIGNATURE, PACK_JOURNAL}
    fixed |= {"install.sh", "runtime.tar.gz"}
    return name in fixed or sums.is_volume(name) or sums.is_parity(name)


def listed_in(folder: Path) -> Collection[str]:
    """Return the files of a finished bundle that is in a folder."""
    path = folder / sums.SUMS
    try:
        return sums.parse(path.read_bytes(), path)
    except (OSError, DamagedError):
        return ()


def refused(problem: OSError, folder: Path) -> PreflightError:
    """Return the error for a disk that takes no more for another reason than its room."""
    if problem.errno == errno.EFBIG:
        return PreflightError(
            "the disk's file system takes no file as large as a volume",
            where=folder,
            hint="FAT32 takes files under 4 GiB: add --volume-size 3900MiB, which begins the bundle anew",
        )
    return PreflightError(
        f"the bundle can't be written: {problem.strerror}",
        where=folder,
        hint=f"{advice(problem) or 'take another disk'}; the same command goes on with what is whole",
    )


def out_of_space(folder: Path) -> PreflightError:
    """Return the error for a full disk; what is written is kept."""
    return PreflightError(
        "no space left for the bundle; what is written so far is kept",
        where=folder,
        hint="free some space, or name one more disk (-o DISK1 -o DISK2); the same command then goes on",
    )
