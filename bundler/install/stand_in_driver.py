"""A driver's library without a GPU: what a server's native modules are linked with, made on the spot.

``libcuda.so.1`` comes with the NVIDIA driver and travels in no bundle, and modules linked with it don't load
where it isn't. So that they can be tried on a host without a GPU, a library is written that has the functions
they name, each of which returns an error. Only a process that is told so sees it. The format is that of the
System V ABI, AMD64 supplement; no compiler is needed.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

from bundler.common.ask import ask
from bundler.common.elf import dynamic_symbols

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

DRIVER = "libcuda.so.1"
NO_DEVICE = 100
"""``CUDA_ERROR_NO_DEVICE``: what the driver's functions return where there is no GPU."""
FUNCTION = re.compile(rb"cu[A-Z]\w*")
"""A function of the driver's; those of CUDA's libraries begin otherwise (``cudaMalloc``, ``cublas…``)."""
CODE = struct.pack("<BIB", 0xB8, NO_DEVICE, 0xC3)
"""``mov eax, NO_DEVICE; ret``."""
SHARED, X86_64 = 3, 62
"""``ET_DYN``, ``EM_X86_64``."""
GLOBAL_FUNCTION = 0x12
"""``STB_GLOBAL`` and ``STT_FUNC``."""
HEADER, SEGMENT, SYMBOL, PAGE = 64, 56, 24, 0x1000
"""Bytes of each."""
SEGMENTS = (
    (1, 5, "all", PAGE),  # PT_LOAD: read and run
    (1, 6, "dynamic", PAGE),  # PT_LOAD: read and written
    (2, 6, "dynamic", 8),  # PT_DYNAMIC
    (0x6474E551, 6, "none", 16),  # PT_GNU_STACK: no code on the stack
)


def give_driver(
    prefix: Path, folder: Path, command: Sequence[str | Path], variables: Mapping[str, str]
) -> str:
    """Write the library for an environment where the loader finds none.

    :param prefix: the environment.
    :param folder: where it is written; that folder must go again.
    :param command: the environment's interpreter, with its options.
    :param variables: what it is started with.
    :returns: its ``LD_LIBRARY_PATH``; empty: none is needed.
    """
    names = driver_functions(prefix)
    load = [*command, "-c", f"import ctypes; ctypes.CDLL({DRIVER!r})"]
    if not names or ask(load, variables=variables).code == 0:
        return ""
    (folder / DRIVER).write_bytes(library(DRIVER, names))
    return ":".join(filter(None, (variables.get("LD_LIBRARY_PATH"), str(folder))))


def driver_functions(prefix: Path) -> list[str]:
    """Return the driver's functions that an environment's libraries name and none of them has."""
    found = [
        one
        for path in prefix.rglob("*.so*")
        if path.is_file() and not path.is_symlink()
        for one in dynamic_symbols(path, FUNCTION)
    ]
    there = {name for name, defined in found if defined}
    return sorted({name.decode() for name, _ in found if name not in there})


def library(name: str, functions: Sequence[str]) -> bytes:
    """Return a shared library for x86_64 whose functions all return :data:`NO_DEVICE`.

    One page that is read and run holds the tables and the code; a second one that the loader may write to
    says where they are.

    :param name: the one by which others ask for it.
    """
    strings, at = _strings([name, *functions])
    hashes = _hash_table(len(functions))
    hash_at = HEADER + len(SEGMENTS) * SEGMENT
    table_at = hash_at + len(hashes) + -len(hashes) % 8
    code_at = table_at + (1 + len(functions)) * SYMBOL
    strings_at = code_at + len(CODE)
    end = strings_at + len(strings)
    table = bytes(SYMBOL) + b"".join(
        struct.pack("<IBBHQQ", one, GLOBAL_FUNCTION, 0, 1, code_at, len(CODE)) for one in at[1:]
    )
    entries = {14: at[0], 4: hash_at, 5: strings_at, 6: table_at, 10: len(strings), 11: SYMBOL, 0: 0}
    dynamic = b"".join(struct.pack("<QQ", tag, value) for tag, value in entries.items())
    dynamic_at = end + -end % PAGE
    head = struct.pack(
        *("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", SHARED, X86_64, 1, 0, HEADER, 0, 0),
        *(HEADER, SEGMENT, len(SEGMENTS), 64, 0, 0),
    )
    places = {"all": (0, end), "dynamic": (dynamic_at, len(dynamic)), "none": (0, 0)}
    for kind, flags, what, alignment in SEGMENTS:
        offset, size = places[what]
        head += struct.pack("<IIQQQQQQ", kind, flags, offset, offset, offset, size, size, alignment)
    parts = ((0, head), (hash_at, hashes), (table_at, table), (code_at, CODE), (strings_at, strings))
    made = bytearray(dynamic_at)
    for place, part in parts:
        made[place : place + len(part)] = part
    return bytes(made + dynamic)


def _strings(words: Iterable[str]) -> tuple[bytes, list[int]]:
    """Return a table of names, and where each begins in it."""
    table, at = b"\0", []
    for word in words:
        at.append(len(table))
        table += word.encode() + b"\0"
    return table, at


def _hash_table(count: int) -> bytes:
    """Return a table with one bucket: a chain through all functions, by which the loader finds each."""
    numbers = [1, count + 1, min(count, 1), 0, *(index + 1 for index in range(1, count)), 0]
    return struct.pack(f"<{count + 4}I", *numbers[: count + 4])
