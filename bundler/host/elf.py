"""Whether a file is a shared library that programs here can load, by the header that it begins with."""

from __future__ import annotations

import platform
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

HEADER = 64
"""Bytes of a 64-bit ELF header (elf(5), ``Elf64_Ehdr``)."""
MACHINES = {62: "x86_64", 183: "aarch64", 3: "32-bit x86", 40: "32-bit ARM"}
"""``e_machine``: for which processor."""


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
