"""Files of the bundle that aren't what they are called."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from tests.hostile.cases.table import Make, case, damaged, missing, seen, sound, sparse
from tests.hostile.workshop import VOLUME, Workshop

if TYPE_CHECKING:
    from collections.abc import Callable


def instead(name: str, plant: Callable[[Any, Workshop], object]) -> Make:
    """Put something else in a file's place."""

    def make(one: Workshop) -> None:
        (one.bundle / name).unlink()
        plant(one.bundle / name, one)

    return make


PLANTS: dict[str, Callable[[Any, Workshop], object]] = {
    "nothing": lambda path, one: None,
    "a folder": lambda path, one: path.mkdir(),
    "a FIFO": lambda path, one: os.mkfifo(path),
    "a link to itself": lambda path, one: path.symlink_to(path.name),
    "a link to nothing": lambda path, one: path.symlink_to(one.home / "nothing"),
    "a link to the canary": lambda path, one: path.symlink_to(one.canary / "kept"),
    "a link to /dev/zero": lambda path, one: path.symlink_to("/dev/zero"),
    "a link to a folder": lambda path, one: path.symlink_to(one.canary),
    "an empty file": lambda path, one: path.touch(),
}
for what, plant in PLANTS.items():
    for name in ("manifest.json", "SHA256SUMS", VOLUME):
        case(f"{what} in place of {name}", instead(name, plant))
    seen(f"{what} in place of install.sh", instead("install.sh", plant))
    seen(f"{what} in place of the parity volume", instead("parity-00001.zfec", plant))
    sound(f"{what} in place of the signature", lambda one, p=plant: p(one.bundle / "SHA256SUMS.sig", one))


def volume(alter: Callable[[bytearray], object], name: str = VOLUME) -> Make:
    def make(one: Workshop) -> None:
        path = one.bundle / name
        data = bytearray(path.read_bytes())
        alter(data)
        path.write_bytes(data)

    return make


missing("a volume cut short", volume(lambda data: data.pop()))
missing("a volume too long", volume(lambda data: data.append(0)))
missing("a volume of 1 TB", sparse(VOLUME, 2**40))
case("a volume with another's bytes", volume(lambda data: data.reverse()))
damaged("a bit turned over", volume(lambda data: data.__setitem__(len(data) // 2, data[len(data) // 2] ^ 1)))
missing("two volumes swapped", lambda one: swap(one.bundle / VOLUME, one.bundle / "data-00002.tar.zst"))


def swap(first: Any, second: Any) -> None:
    """Let two files change names."""
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)
