"""What a shared library says of itself to the loader: its processor, and what it needs (elf(5))."""

from __future__ import annotations

import mmap
import platform
import struct
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import re
    from collections.abc import Iterator
    from pathlib import Path

DYNAMIC, DYNAMIC_SYMBOLS = 6, 11
"""``SHT_DYNAMIC``, ``SHT_DYNSYM``: kinds of sections."""
NEEDED = 1
"""``DT_NEEDED``."""


HEADER = 64
"""Bytes of a 64-bit ELF header (elf(5), ``Elf64_Ehdr``)."""
MACHINES = {62: "x86_64", 183: "aarch64", 3: "32-bit x86", 40: "32-bit ARM"}
"""``e_machine``: for which processor."""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a library, and the names that its rows refer to."""

    kind: int
    rows: bytes
    names: bytes

    def name(self, at: int) -> bytes:
        """Return the name that begins at a place of the names."""
        return self.names[at : self.names.index(b"\0", at)]


def library_problem(path: Path, machine: str | None = None) -> str | None:
    """Return why a file can't be loaded as a library here; ``None`` where its header is right.

    :param machine: the processor, as ``uname -m`` says it; this host's where none is named.
    """
    try:
        with path.open("rb") as file:
            header = file.read(HEADER)
    except OSError as problem:
        return f"can't be read: {problem.strerror}"
    if not header:
        return "is empty"
    if len(header) < HEADER or not header.startswith(b"\x7fELF"):
        return "is no shared library"
    (kind,) = struct.unpack_from("<H", header, 18)
    found, wanted = MACHINES.get(kind, f"processor {kind}"), machine or platform.machine()
    return None if found == wanted else f"is for {found}, not for {wanted}"


def needed_libraries(path: Path) -> list[str]:
    """Return the names of the libraries that one is linked with; none where it is no 64-bit ELF file."""
    with _sections(path, DYNAMIC) as found:
        return [
            section.name(value).decode(errors="replace")
            for section in found
            for tag, value in struct.iter_unpack("<QQ", section.rows)
            if tag == NEEDED
        ]


def dynamic_symbols(path: Path, pattern: re.Pattern[bytes]) -> list[tuple[bytes, bool]]:
    """Return a library's symbols of some names, and whether it defines them itself.

    :param pattern: what a whole name matches. It is looked for in the table of names first, since most
        libraries have none.
    """
    with _sections(path, DYNAMIC_SYMBOLS) as found:
        return [
            (name, place != 0)
            for section in found
            if pattern.search(section.names)
            for at, _, _, place, _, _ in struct.iter_unpack("<IBBHQQ", section.rows)
            if pattern.fullmatch(name := section.name(at))
        ]


@contextmanager
def _sections(path: Path, kind: int) -> Iterator[list[Section]]:
    """Yield a library's sections of a kind; none where it is no whole ELF file: the loader says that."""
    with path.open("rb") as file:
        if file.read(5) != b"\x7fELF\x02":
            yield []
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield _read(data, kind)


def _read(data: mmap.mmap, kind: int) -> list[Section]:
    try:
        (offset,) = struct.unpack_from("<Q", data, 40)
        size, count = struct.unpack_from("<HH", data, 58)
        table = [struct.unpack_from("<IIQQQQIIQQ", data, offset + size * index) for index in range(count)]
        return [
            Section(kind, data[row[4] : row[4] + row[5]], data[names[4] : names[4] + names[5]])
            for row in table
            if row[1] == kind and (names := table[row[6]])
        ]
    except (struct.error, IndexError):
        return []
