"""Where everything lies: the index of a manifest, with volumes and offsets derived from its columns."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from bundler.archive import tar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bundler.manifest import Manifest


class Frame(NamedTuple):
    """One frame of the archive."""

    number: int
    """Its place among all frames, from 0."""
    volume: int
    """The volume's place in the manifest, from 0."""
    offset: int
    """Its first byte in the volume."""
    stored: int
    """Bytes it takes there."""
    start: int
    """Where its content begins in the tar stream."""
    raw: int
    """Bytes of its content."""
    blake3: str


class Slice(NamedTuple):
    """A piece of a file's content inside a frame."""

    entry: int
    """The file's place in the tree."""
    at: int
    """Where the piece begins in the file."""
    begin: int
    """Where it begins in the frame's content."""
    end: int
    """The first byte after it in the frame's content."""


class Layout:
    """Answers where frames, files and headers lie. Holds some 32 bytes for each frame."""

    def __init__(self, manifest: Manifest) -> None:
        """Derive the index.

        :param manifest: one that :func:`bundler.archive.validate.check` let pass.
        """
        frames = manifest.frames
        self._manifest = manifest
        self._starts = array("q", accumulate(frames.raw, initial=0))
        self._volumes = array("l")
        self._offsets = array("q")
        number = 0
        for place, volume in enumerate(manifest.volumes):
            stored = frames.stored[number : number + volume.frames]
            self._offsets.extend(accumulate(stored[:-1], initial=0) if stored else ())
            self._volumes.extend([place] * volume.frames)
            number += volume.frames
        self._files = [
            number
            for number, entry in enumerate(manifest.tree)
            if entry.kind == "file" and entry.size and entry.offset >= 0
        ]
        self._contents = array("q", (manifest.tree[number].offset for number in self._files))
        carried = [number for number, entry in enumerate(manifest.tree) if entry.offset >= 0]
        self._carried = array("l", carried)
        self._places = array("q", (manifest.tree[number].offset for number in carried))

    def __len__(self) -> int:
        """Return how many frames there are."""
        return len(self._volumes)

    def frame(self, number: int) -> Frame:
        """Return one frame."""
        frames = self._manifest.frames
        return Frame(
            number,
            self._volumes[number],
            self._offsets[number],
            frames.stored[number],
            self._starts[number],
            frames.raw[number],
            frames.blake3[number],
        )

    def frames(self) -> Iterator[Frame]:
        """Yield all frames in the stream's order."""
        return map(self.frame, range(len(self)))

    def first_of(self, volume: int) -> int:
        """Return the number of a volume's first frame."""
        return sum(one.frames for one in self._manifest.volumes[:volume])

    def of_file(self, entry: int) -> range:
        """Return the numbers of the frames that hold a file's content; none hold what a delta's base has."""
        row = self._manifest.tree[entry]
        return self.within(row.offset, row.offset + row.size) if row.size and row.offset >= 0 else range(0)

    def within(self, start: int, end: int) -> range:
        """Return the numbers of the frames that hold the stream's bytes from ``start`` to before ``end``."""
        return range(bisect_right(self._starts, start) - 1, bisect_right(self._starts, end - 1))

    def slices(self, frame: Frame) -> list[Slice]:
        """Return the pieces of files that a frame holds, in order."""
        end = frame.start + frame.raw
        found = []
        for place in range(max(bisect_right(self._contents, frame.start) - 1, 0), len(self._files)):
            entry = self._files[place]
            row = self._manifest.tree[entry]
            if row.offset >= end:
                break
            begin, stop = max(row.offset, frame.start), min(row.offset + row.size, end)
            if begin < stop:
                found.append(Slice(entry, begin - row.offset, begin - frame.start, stop - frame.start))
        return found

    def differences(self, frame: Frame, content: memoryview) -> Iterator[str]:
        """Yield where a frame's headers, padding and end aren't what the tree says: paths, or ``its end``.

        :param content: the frame's, decompressed.
        """
        end = frame.start + frame.raw
        for name, position, expected in self._fixed_parts(frame.start, end):
            begin, stop = max(position, frame.start), min(position + len(expected), end)
            if begin < stop:
                there = content[begin - frame.start : stop - frame.start]
                if there != memoryview(expected)[begin - position : stop - position]:
                    yield name

    def _fixed_parts(self, start: int, end: int) -> Iterator[tuple[str, int, bytes]]:
        """Yield what the stream must hold outside of contents: whose, a position and the bytes there.

        All that lies between ``start`` and ``end`` is among it, and at most one entry's before and after.
        """
        tree = self._manifest.tree
        place = max(bisect_right(self._places, start) - 1, 0)
        position = 0
        for number in self._carried[place:]:
            row = tree[number]
            if row.offset > start:
                header = tar.header(row.path, row.kind, row.mode, row.size, row.target)
                yield row.path, row.offset - len(header), header
            position = row.offset + row.size
            if position >= end:
                return
            if padding := tar.padding(row.size):
                yield row.path, position, bytes(padding)
                position += padding
        yield "its end", position, tar.ending(position)
