"""A bundle's sizes as a picture: parts as rectangles of a treemap, each cut into what it is made of.

The layout is Bruls, Huizing and van Wijk's squarified treemap (2000).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bundler.archive.sums import is_volume
from bundler.common.units import size_text
from bundler.report.runtime_packages import RUNTIME

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bundler.manifest import Entry
    from bundler.report.inventory import Inventory

PartKind = Literal["model", "wheel", "conda", "runtime", "other"]
LEAST = 0.002
"""Share of the whole below which things of a part are drawn as one."""
MEANINGFUL = 6
"""Letters of a name that are worth showing."""
CHARACTER = 0.62
"""Width of a letter, as a share of the font's size."""


@dataclass(frozen=True)
class Thing:
    """Something with a size and a name."""

    name: str
    size: int
    short: str = ""
    """What tells it from its like where the name doesn't fit; empty where nothing does."""

    @property
    def text(self) -> str:
        """The size as people read it."""
        return size_text(self.size)


@dataclass(frozen=True)
class Part:
    """Things of one kind."""

    kind: PartKind
    name: str
    things: tuple[Thing, ...]

    @property
    def size(self) -> int:
        """Bytes of all of them."""
        return sum(one.size for one in self.things)

    @property
    def text(self) -> str:
        """The size as people read it."""
        return size_text(self.size)


@dataclass(frozen=True)
class Box:
    """A rectangle of the picture, in its own units."""

    kind: PartKind
    name: str
    text: str
    x: float
    y: float
    width: float
    height: float
    label: str
    """What fits into it; may be empty."""
    second: str
    """A second line that fits, the size; may be empty."""


def parts_of(inventory: Inventory) -> list[Part]:
    """Return what the bundle's files are, the largest part first; sizes are the files' own, uncompressed."""
    manifest = inventory.bundle.manifest
    packages = [one for one in inventory.packages if one.environments]
    known = {one.path for environment in manifest.environments for one in environment.packages}
    folders = tuple(f"{one.model.path}/" for one in inventory.models)
    rest = [
        Thing(entry.path, entry.size)
        for entry in manifest.tree
        if entry.kind == "file" and entry.path not in known and not entry.path.startswith(folders)
    ]
    found = [
        Part("model", f"model {one.model.spec.name}", _of_model(one.model.path, one.files))
        for one in inventory.models
    ]
    for kind, name in (("wheel", "wheels"), ("conda", "conda packages")):
        things = tuple(Thing(f"{one.name} {one.version}", one.size) for one in packages if one.kind == kind)
        found.append(Part(kind, name, things))  # type: ignore[arg-type]
    found.append(Part("runtime", "runtime", tuple(_companions(inventory))))
    found.append(Part("other", "other files", tuple(rest)))
    return sorted((part for part in found if part.size), key=lambda part: -part.size)


def _of_model(folder: str, files: Sequence[Entry]) -> tuple[Thing, ...]:
    return tuple(Thing(one.path.removeprefix(f"{folder}/"), one.size, _shard(one.path)) for one in files)


def _shard(path: str) -> str:
    """Return a shard's number, ``7/93``, or an empty word for another file."""
    found = re.search(r"(\d+)-of-(\d+)\.\w+$", path)
    return f"{int(found[1])}/{int(found[2])}" if found else ""


def _companions(inventory: Inventory) -> Iterator[Thing]:
    """Yield what lies beside the volumes and is carried to be run."""
    for name in inventory.bundle.sums:
        if name == RUNTIME or (name.endswith(".sh") and not is_volume(name)):
            path = next((one / name for one in inventory.bundle.folders if (one / name).is_file()), None)
            if path is not None:
                yield Thing(name, path.stat().st_size)


def treemap(parts: Sequence[Part], width: float, height: float, font: float) -> list[Box]:
    """Return the rectangles of all things, each as large as its share of the whole.

    :param font: size of the labels, in the picture's units.
    """
    total = sum(part.size for part in parts)
    boxes = []
    for part, area in zip(parts, _squarified([one.size for one in parts], 0, 0, width, height), strict=True):
        things = _merged(part, LEAST * total)
        for thing, box in zip(things, _squarified([one.size for one in things], *area), strict=True):
            boxes.append(_box(part.kind, thing, box, font))
    return boxes


def _merged(part: Part, least: float) -> list[Thing]:
    """Return a part's things, the largest first, the smallest of them as one."""
    things = sorted((one for one in part.things if one.size), key=lambda one: -one.size)
    large = [one for one in things if one.size >= least]
    small = things[len(large) :]
    if len(small) < 2:
        return things
    merged = Thing(f"{len(small)} smaller", sum(one.size for one in small), f"+{len(small)}")
    return sorted([*large, merged], key=lambda one: -one.size)


Area = tuple[float, float, float, float]
"""x, y, width, height."""


def _squarified(sizes: Sequence[float], x: float, y: float, width: float, height: float) -> list[Area]:
    """Cut a rectangle into ones of given shares, nearly square, in the order given: the largest first."""
    found: list[Area] = []
    scale = width * height / (sum(sizes) or 1)
    areas = [size * scale for size in sizes]
    while areas:
        side = min(width, height)
        count = 1
        while count < len(areas) and _worst(areas[: count + 1], side) <= _worst(areas[:count], side):
            count += 1
        row, areas = areas[:count], areas[count:]
        depth = sum(row) / side if side else 0
        at = 0.0
        for area in row:
            length = area / depth if depth else 0
            found.append((x, y + at, depth, length) if width >= height else (x + at, y, length, depth))
            at += length
        if width >= height:
            x, width = x + depth, max(width - depth, 0)
        else:
            y, height = y + depth, max(height - depth, 0)
    return found


def _worst(row: Sequence[float], side: float) -> float:
    """Return the longest side of a row's rectangles by their shorter."""
    whole = sum(row)
    if not whole or not side:
        return 0
    return max(side**2 * max(row) / whole**2, whole**2 / (side**2 * (min(row) or 1e-12)))


def _box(kind: PartKind, thing: Thing, area: Area, font: float) -> Box:
    x, y, width, height = (round(one, 2) for one in area)
    room = int((width - font) / (font * CHARACTER))
    label = _label(thing, room) if height >= 1.7 * font else ""
    second = thing.text if label and room >= len(thing.text) and height >= 3 * font else ""
    return Box(kind, thing.name, thing.text, x, y, width, height, label, second)


def _label(thing: Thing, room: int) -> str:
    """Return what of a name tells something in a room of so many letters."""
    if len(thing.name) <= room:
        return thing.name
    if thing.short:
        return thing.short if len(thing.short) <= room else ""
    return f"{thing.name[: room - 1]}…" if room > MEANINGFUL else ""


@dataclass(frozen=True)
class Bar:
    """One line of a bar chart."""

    kind: PartKind
    name: str
    text: str
    percent: float
    """Of the longest bar."""


def largest(parts: Sequence[Part], kinds: Sequence[PartKind], count: int) -> list[Bar]:
    """Return the largest things of some kinds as bars."""
    things = [(part.kind, thing) for part in parts if part.kind in kinds for thing in part.things]
    things = sorted(things, key=lambda one: -one[1].size)[:count]
    most = max((thing.size for _, thing in things), default=1)
    return [Bar(kind, one.name, one.text, round(100 * one.size / (most or 1), 2)) for kind, one in things]


def stacked(parts: Sequence[Part]) -> list[tuple[Part, float, float]]:
    """Return each part with where it begins and how long it is in a bar of 100."""
    total = sum(part.size for part in parts) or 1
    found, at = [], 0.0
    for part in parts:
        share = 100 * part.size / total
        found.append((part, round(at, 3), round(share, 3)))
        at += share
    return found
