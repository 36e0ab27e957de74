"""The header of a safetensors file, read and checked without its data.

A file is 8 bytes of header length (little endian), the header (a JSON object), then the tensors' data without
gaps. The header alone tells the file's exact size, so a truncated shard is found without reading it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from bundler.common.broken import BROKEN_JSON
from bundler.errors import DamagedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HEADER_LIMIT = 100_000_000
"""The longest header, in bytes, that the reference implementation reads."""
COUNT_LIMIT = 1 << 62

BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}
"""Bits of one element, by the format's name of its type."""

_LIMIT_HINT = "fetch the file again; if it stays so, the publisher's file itself is broken"


class _Entry(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor as the header describes it."""

    name: str
    dtype: str
    elements: int
    size: int
    """Bytes of its data."""


@dataclass(frozen=True, slots=True)
class Header:
    """A header that was found consistent in itself and with its file's size."""

    tensors: tuple[Tensor, ...]
    """In the order of their data."""
    file_size: int
    """What the header says the file's size is, in bytes."""


def read_header(read: Callable[[int, int], bytes], size: int, where: object) -> Header:
    """Read and check a header.

    :param read: called with offset and length, returns these bytes of the file (fewer at its end).
    :param size: the file's size in bytes.
    :param where: the file, for messages.
    :raises DamagedError: no safetensors file, or header, size, shapes and offsets contradict each other.
    """
    if size < 8:
        raise _damaged(f"is {size} bytes long: no safetensors file", where)
    length = int.from_bytes(read(0, 8), "little")
    if length > HEADER_LIMIT or 8 + length > size:
        raise _damaged(
            f"its header claims {length} bytes, the file has {size}: truncated, or no safetensors file", where
        )
    findings, tensors, end = _check(_decode(read(8, length), where))
    if not findings and 8 + length + end != size:
        what = "truncated" if size < 8 + length + end else "too long"
        findings.append(f"{what}: the header describes {8 + length + end} bytes, the file has {size}")
    if findings:
        raise DamagedError(
            "a safetensors file contradicts itself", where=where, hint=_LIMIT_HINT, findings=findings[:20]
        )
    return Header(tuple(tensors), 8 + length + end)


def read_file_header(path: Path) -> Header:
    """Read and check the header of a file on this host.

    :raises DamagedError: as :func:`read_header`.
    :raises OSError: it can't be read.
    """
    with path.open("rb") as file:

        def read(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)

        return read_header(read, path.stat().st_size, path)


def _damaged(what: str, where: object) -> DamagedError:
    return DamagedError("a safetensors file is damaged", where=where, hint=_LIMIT_HINT, findings=[what])


def _decode(data: bytes, where: object) -> dict[str, _Entry]:
    try:
        raw = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        # msgspec keeps the last of two equal keys: another reader may keep the first, or refuse the file.
        json.loads(data, object_pairs_hook=_keys_differ, parse_int=_plain)
    except (ValueError, RecursionError) as problem:
        raise _damaged(f"its header is not a JSON object: {problem}", where) from problem
    _check_metadata(raw.pop("__metadata__", None), where)
    entries = {}
    for name, text in raw.items():
        try:
            entries[name] = msgspec.json.decode(text, type=_Entry)
        except BROKEN_JSON as problem:
            raise _damaged(f"its header describes {_shown(name)} wrongly: {problem}", where) from problem
    return entries


def _keys_differ(pairs: list[tuple[str, object]]) -> None:
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"it names {_shown(twice)} twice")


def _plain(digits: str) -> None:
    # Readers of whole numbers take it for a fraction.
    if digits == "-0":
        raise ValueError("-0 is no whole number")


def _check_metadata(text: msgspec.Raw | None, where: object) -> None:
    """Refuse what isn't words by words: the file is then read by nobody, whatever its tensors are."""
    if text is None:
        return
    try:
        msgspec.json.decode(text, type=dict[str, str] | None)
    except BROKEN_JSON as problem:
        raise _damaged(f"its header's __metadata__ isn't text by name: {problem}", where) from problem


def _check(entries: dict[str, _Entry]) -> tuple[list[str], list[Tensor], int]:
    """Return what is wrong, the tensors in the data's order, and the data's length."""
    findings: list[str] = []
    tensors: list[Tensor] = []
    position = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        begin, end = entry.data_offsets
        wrong, elements = _shape(entry)
        if begin != position and not wrong:
            place = "inside" if begin < position else "a gap behind"
            wrong = f"its data begins at {begin}, {place} the one before"
        if wrong:
            findings.append(f"{_shown(name)}: {wrong}")
        position = end
        tensors.append(Tensor(name, entry.dtype, elements, end - begin))
    return findings, tensors, position


def _shape(entry: _Entry) -> tuple[str | None, int]:
    """Return what is wrong with a tensor's own figures, and its number of elements."""
    begin, end = entry.data_offsets
    if begin < 0 or end < begin or end > COUNT_LIMIT:
        return f"impossible data_offsets [{begin}, {end}]", 0
    if any(extent < 0 or extent > COUNT_LIMIT for extent in entry.shape) or len(entry.shape) > 64:
        return "an impossible shape", 0
    if entry.dtype not in BITS:
        return f"unknown dtype {_shown(entry.dtype)}", 0
    elements = 1
    for extent in entry.shape:
        elements *= extent
        # Also where a later extent is 0: readers multiply in this order, in machine words.
        if elements > COUNT_LIMIT:
            return "an impossible shape", 0
    if elements * BITS[entry.dtype] != (end - begin) * 8:
        shape = "×".join(map(str, entry.shape)) or "a scalar"
        return f"{shape} of {entry.dtype} is not the {end - begin} bytes that data_offsets give it", elements
    return None, elements


def _shown(text: str) -> str:
    """Return a name as a message may show it: printable and short."""
    clean = re.sub(r"[^\x20-\x7e]", "?", text)
    return repr(clean if len(clean) <= 80 else clean[:77] + "...")
