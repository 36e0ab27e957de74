"""Trees, recipes and comparisons that the archive's tests share; run as a program, it is what gets killed."""

from __future__ import annotations

import hashlib
import io
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bundler.archive import parity
from bundler.archive.bundle import Bundle
from bundler.archive.member import FileSource, Member
from bundler.archive.parity_repair import repair_bundle
from bundler.archive.recipe import Recipe, current_writer
from bundler.archive.unpack import unpack_bundle
from bundler.archive.writer import write_bundle
from bundler.manifest import Manifest

if TYPE_CHECKING:
    from collections.abc import Iterable

FRAME = 16384
"""Frames as small as this put many borders into small trees."""
STRIPE, GROUP = 4096, 5
"""Bytes of a piece and files of a group, so small that little bundles have several groups of many stripes."""


@dataclass(frozen=True)
class BytesSource:
    """A small file that is made, not found."""

    data: bytes

    @property
    def fingerprint(self) -> str:
        """Its digest."""
        return hashlib.sha256(self.data).hexdigest()

    def open(self) -> io.BytesIO:
        """Open the bytes."""
        return io.BytesIO(self.data)


def content(size: int, seed: int, kind: str = "mixed") -> bytes:
    """Return bytes: ``random`` is stored, ``text`` shrinks, ``mixed`` is half of each."""
    noise = random.Random(seed).randbytes(size)
    if kind == "random":
        return noise
    text = (b"%d little frames, " % seed) * (size // 16 + 1)
    return text[:size] if kind == "text" else (noise[: size // 2] + text)[:size]


def members_of(folder: Path) -> list[Member]:
    """Return what a folder holds as members, sorted, links and empty folders too."""
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found.append(Member(name, "link", target=str(path.readlink())))
        elif path.is_dir():
            found.append(Member(name, "dir"))
        else:
            status = path.stat()
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            executable = bool(status.st_mode & 0o100)
            found.append(Member(name, "file", status.st_size, executable, digest, FileSource(path)))
    return found


def recipe_of(folder: Path, **fields: object) -> Recipe:
    """Return a recipe for a folder, with small frames and volumes."""
    numbers = {"frame_size": FRAME, "volume_size": 60_000, **fields}
    head = Manifest(name="little", writer=current_writer())
    return Recipe(head=head, members=members_of(folder), companions={"install.sh": b"#!/bin/sh\n"}, **numbers)  # type: ignore[arg-type]


def make_tree(
    folder: Path, sizes: Iterable[int] = (0, 1, 511, 512, 513, 70_000, 300_000, 140_000, 9)
) -> Path:
    """Make a folder with files of given sizes, a link, an empty folder, an executable."""
    for number, size in enumerate(sizes):
        path = folder / f"weights/m{number % 3}/file-{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(size, number, ("mixed", "random", "text")[number % 3]))
        path.chmod(0o755 if number % 4 == 0 else 0o644)
    (folder / "weights/empty").mkdir(parents=True)
    (folder / "weights/link").symlink_to("m0/file-0")
    return folder


def snapshot(folder: Path) -> dict[str, tuple[str, ...]]:
    """Return everything in a tree but bundler's own state: kind, mode, and digest or target."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name.split("/")[0] == ".bundler":
            continue
        if path.is_symlink():
            found[name] = ("link", str(path.readlink()))
            continue
        mode = f"{path.stat().st_mode & 0o777:o}"
        digest = "" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
        found[name] = ("dir" if path.is_dir() else "file", mode, digest)
    return found


def files_of(bundle: Path) -> dict[str, bytes]:
    """Return the bundle's files that must be the same from run to run: all but the log."""
    return {path.name: path.read_bytes() for path in bundle.iterdir() if path.name != "pack-log.json"}


def flip(path: Path, offset: int, bit: int = 0) -> None:
    """Turn one bit of a file over."""
    data = bytearray(path.read_bytes())
    data[offset % len(data)] ^= 1 << bit
    path.write_bytes(data)


def unpack(bundle: Path | list[Path], destination: Path, **options: object) -> object:
    """Open and unpack a bundle."""
    with Bundle.open(bundle if isinstance(bundle, list) else [bundle]) as opened:
        return unpack_bundle(opened, destination, **options)  # type: ignore[arg-type]


if __name__ == "__main__":
    from bundler.archive import batches

    # Small batches: a kill then meets every state between two of them.
    batches.BATCH_BYTES = 60_000
    command, first, second, threads = sys.argv[1:]
    if command == "pack":
        write_bundle(recipe_of(Path(first)), [Path(second)], threads=int(threads))
    elif command == "parity":
        parity.STRIPE, parity.MOST_DATA = STRIPE, GROUP
        write_bundle(recipe_of(Path(first), parity=2), [Path(second)], threads=int(threads))
    elif command == "repair":
        repair_bundle([Path(first)], None if first == second else Path(second), threads=int(threads))
    else:
        unpack(Path(first), Path(second), threads=int(threads))
