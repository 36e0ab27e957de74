"""The tar stream's fixed parts: one header for one entry, byte for byte. ``docs/FORMAT.md`` specifies them.

Headers are a function of the entry alone, so that a reader can lay out the whole stream from the manifest and
compare it with what is there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bundler.manifest import EntryKind

BLOCK = 512
"""Bytes of a tar block; headers and contents are padded to it."""
RECORD = 20 * BLOCK
"""Bytes of a tar record; the stream is padded to it, as POSIX asks of an archive."""
MTIME = 315532800
"""1980-01-01 UTC, for every entry: 0 makes GNU tar warn, and zip can't say anything earlier."""
FILE_MODE, EXECUTABLE_MODE, DIR_MODE, LINK_MODE = 0o644, 0o755, 0o755, 0o777
"""The only modes there are."""

_TYPES: dict[EntryKind, bytes] = {"file": b"0", "dir": b"5", "link": b"2"}
_LARGEST_USTAR_SIZE = 8**11 - 1
_PAX_NAME = b"././@PaxHeader"


def padding(size: int) -> int:
    """Return how many zero bytes follow ``size`` bytes of content."""
    return -size % BLOCK


def header(path: str, kind: EntryKind, mode: int, size: int, target: str = "") -> bytes:
    """Return an entry's header: one ustar block, with a pax extended header before it only where needed.

    :param path: relative, with ``/``; a folder's gets its closing slash here.
    :param size: bytes of content.
    :param target: a link's target.
    """
    name = (path + "/" if kind == "dir" else path).encode()
    link = target.encode()
    records = b""
    split = _split(name)
    if split is None:
        records += _record(b"path", name)
        split = (b"", _ascii(name)[:100])
    if len(link) > 100 or not link.isascii():
        records += _record(b"linkpath", link)
        link = _ascii(link)[:100]
    stated = size
    if size > _LARGEST_USTAR_SIZE:
        records += _record(b"size", str(size).encode())
        stated = 0
    before = b""
    if records:
        before = _block(b"", _PAX_NAME, FILE_MODE, len(records), b"x", b"")
        before += records + bytes(padding(len(records)))
    return before + _block(split[0], split[1], mode, stated, _TYPES[kind], link)


def _ascii(name: bytes) -> bytes:
    return bytes(byte if byte < 0x80 else ord("?") for byte in name)


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """Return ustar's prefix and name, the name as long as can be, or ``None`` where they can't hold it."""
    if not name.isascii():
        return None
    if len(name) <= 100:
        return b"", name
    at = name.find(b"/", len(name) - 101)
    if at < 1 or at > 155 or at == len(name) - 1:
        return None
    return name[:at], name[at + 1 :]


def _record(key: bytes, value: bytes) -> bytes:
    """Return a pax record, whose length counts its own digits."""
    bare = len(key) + len(value) + 3
    length = bare + len(str(bare))
    length = bare + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _block(prefix: bytes, name: bytes, mode: int, size: int, kind: bytes, link: bytes) -> bytes:
    fields = (
        name.ljust(100, b"\0"),
        b"%07o\0" % mode,
        b"0000000\0",
        b"0000000\0",
        b"%011o\0" % size,
        b"%011o\0" % MTIME,
        b" " * 8,
        kind,
        link.ljust(100, b"\0"),
        b"ustar\x0000",
        bytes(64),
        b"0000000\0",
        b"0000000\0",
        prefix.ljust(155, b"\0"),
        bytes(12),
    )
    block = b"".join(fields)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


class Offsets(NamedTuple):
    """Where an entry lies in the stream, in bytes from its beginning."""

    header: int
    """Its header's first byte."""
    content: int
    """Its content's first byte, also where there is none."""
    end: int
    """The first byte after its padding."""


def places(entries: Iterable[tuple[str, EntryKind, int, int, str]]) -> Iterator[Offsets]:
    """Lay entries out one after the other.

    :param entries: path, kind, mode, size and target of each that the stream carries, in order.
    """
    position = 0
    for path, kind, mode, size, target in entries:
        content = position + len(header(path, kind, mode, size, target))
        end = content + size + padding(size)
        yield Offsets(position, content, end)
        position = end


def ending(position: int) -> bytes:
    """Return the stream's end at ``position``: two zero blocks, and zeros to a whole record."""
    return bytes(2 * BLOCK + -(position + 2 * BLOCK) % RECORD)
