"""Zeroes the GPU code of a library that one kind of GPU doesn't run, so that the library packs small.

A CUDA library keeps its GPU code in fat binaries, one behind the other in a section of their own: for each,
a header with the size of what follows, then entries, each with a header of its own that says kind,
architecture and payload's size. Headers, sizes and offsets stay as they are and only payloads become zeros:
the library loads as before, and the driver finds the entry for its GPU.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SECTIONS = (".nv_fatbin", "__nv_relfatbin", ".cask_resource")
MAGIC = 0xBA55ED50
PTX = 1
"""The kind of an entry that the driver would compile; others are machine code."""
ELF_HEADER = 64
SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")
CONTAINER = struct.Struct("<IHHQ")
"""Magic, version, the header's size, the size of all entries."""
ENTRY = struct.Struct("<HHIQ")
"""Kind, version, the header's size, the payload's size."""
ENTRY_HEADER = 64
ARCHITECTURE = 28
"""Where an entry's header holds the architecture: 90 for compute capability 9.0."""


@dataclass(frozen=True)
class Code:
    """One entry's payload."""

    start: int
    size: int
    kind: int
    architecture: int


def keep_architecture(library: bytearray, architecture: int) -> int:
    """Zero all GPU code but one architecture's machine code.

    :param library: an ELF file, changed in place.
    :returns: the bytes that were zeroed.
    :raises ValueError: it is no 64-bit ELF file.
    """
    zeroed = 0
    for code in codes(library):
        if code.kind == PTX or code.architecture != architecture:
            library[code.start : code.start + code.size] = bytes(code.size)
            zeroed += code.size
    return zeroed


def codes(library: bytes | bytearray) -> Iterator[Code]:
    """Yield the entries of all fat binaries of a library.

    :raises ValueError: it is no 64-bit ELF file.
    """
    for name, (start, size) in sections(library).items():
        if name in SECTIONS:
            yield from _codes_between(library, start, start + size)


def sections(library: bytes | bytearray) -> dict[str, tuple[int, int]]:
    """Return each section's offset and size, by name.

    :raises ValueError: it is no 64-bit little-endian ELF file.
    """
    if library[:6] != b"\x7fELF\x02\x01":
        raise ValueError("no 64-bit ELF file")
    (table,) = struct.unpack_from("<Q", library, 40)
    count, names = struct.unpack_from("<HH", library, 60)
    rows = [SECTION_HEADER.unpack_from(library, table + SECTION_HEADER.size * row) for row in range(count)]
    text = rows[names][4]
    found = {}
    for row in rows:
        name = text + row[0]
        found[bytes(library[name : library.index(0, name)]).decode()] = (row[4], row[5])
    return found


def _codes_between(library: bytes | bytearray, place: int, end: int) -> Iterator[Code]:
    while place + CONTAINER.size <= end:
        magic, _, header, size = CONTAINER.unpack_from(library, place)
        if magic != MAGIC:
            place += 8  # the padding between two
            continue
        entry, last = place + header, place + header + size
        while entry + ENTRY_HEADER <= last:
            kind, _, before, payload = ENTRY.unpack_from(library, entry)
            (architecture,) = struct.unpack_from("<I", library, entry + ARCHITECTURE)
            yield Code(entry + before, payload, kind, architecture)
            entry += before + payload
        place = (last + 7) // 8 * 8
