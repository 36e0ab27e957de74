"""Frames and tar headers: all digests are right, and what they cover isn't what the manifest says."""

from __future__ import annotations

import gzip
import struct
from typing import TYPE_CHECKING, Any

import zstandard

from bundler.archive import frames
from tests.hostile.cases.table import DAMAGED, INPUT, Make, bad_input, case, damaged, seen, sound
from tests.hostile.workshop import GOOD

if TYPE_CHECKING:
    from collections.abc import Callable


def frame(make: Callable[[bytes], bytes], raw: int | None = None) -> Make:
    return lambda one: one.frame(make, raw)


def header(descriptor: int, rest: bytes) -> bytes:
    return struct.pack("<IB", 0xFD2FB528, descriptor) + rest


def block(kind: int, size: int, data: bytes, *, last: bool = True) -> bytes:
    return (size << 3 | kind << 1 | last).to_bytes(3, "little") + data


def bomb(content: bytes) -> bytes:
    """Return a frame that says the stream's size, and holds 128 KiB of every 4 bytes without end."""
    blocks = b"".join(block(1, 2**17, b"\0", last=False) for _ in range(5_000))
    return header(0xA0, struct.pack("<I", len(content))) + blocks + block(1, 2**17, b"\0")


def sized(content: bytes, **options: Any) -> bytes:
    return zstandard.ZstdCompressor(write_dict_id=False, **options).compress(content)


def windowed(content: bytes) -> bytes:
    """Return a frame that asks for a window of 2 GiB and more."""
    return header(0x80, bytes([(31 - 10) << 3]) + struct.pack("<I", len(content))) + block(
        0, len(content), content
    )


DICTIONARY = zstandard.ZstdCompressionDict(
    b"dictionary of some length " * 40, dict_type=zstandard.DICT_TYPE_RAWCONTENT
)
for name, make in {
    "a bomb": bomb,
    "a bomb without a size": lambda content: (
        header(0x00, b"\x88")
        + b"".join(block(1, 2**17, b"\0", last=False) for _ in range(5_000))
        + block(1, 1, b"\0")
    ),
    "no size in the header": lambda content: sized(content, write_content_size=False),
    "a size too small": lambda content: header(0xA0, struct.pack("<I", 7)) + block(0, len(content), content),
    "a size too large": lambda content: (
        header(0xA0, struct.pack("<I", len(content) + 1)) + block(0, len(content), content)
    ),
    "a size of 2^64-1": lambda content: (
        header(0xE0, struct.pack("<Q", 2**64 - 1)) + block(0, len(content), content)
    ),
    "a window of 2 GiB": windowed,
    "a dictionary's number": lambda content: (
        header(0xA1, b"\x07" + struct.pack("<I", len(content))) + block(0, len(content), content)
    ),
    "a dictionary": lambda content: zstandard.ZstdCompressor(dict_data=DICTIONARY).compress(content),
    "a wrong checksum": lambda content: sized(content, write_checksum=True)[:-1] + b"\0",
    "a skippable frame": lambda content: struct.pack("<II", 0x184D2A50, len(content)) + content,
    "a skippable frame before": lambda content: (
        struct.pack("<II", 0x184D2A50, 4) + b"skip" + frames.store(content)
    ),
    "a skippable frame behind": lambda content: (
        frames.store(content) + struct.pack("<II", 0x184D2A5F, 4) + b"skip"
    ),
    "a skippable frame of 4 GiB": lambda content: struct.pack("<II", 0x184D2A50, 2**32 - 1) + content,
    "two frames": lambda content: frames.store(content[:512]) + frames.store(content[512:]),
    "something behind": lambda content: frames.store(content) + b"\0\0\0\0",
    "a block too short": lambda content: frames.store(content)[:-1],
    "a reserved block": lambda content: header(0xA0, struct.pack("<I", len(content))) + block(3, 9, b"x" * 9),
    "a reserved bit": lambda content: (
        header(0xA8, struct.pack("<I", len(content))) + block(0, len(content), content)
    ),
    "a block over 128 KiB": lambda content: (
        header(0xA0, struct.pack("<I", len(content))) + block(0, 2**20, content * 100)
    ),
    "no last block": lambda content: (
        header(0xA0, struct.pack("<I", len(content))) + block(0, len(content), content, last=False)
    ),
    "an empty last block too many": lambda content: (
        header(0xA0, struct.pack("<I", len(content)))
        + block(0, len(content), content, last=False)
        + block(0, 0, b"", last=False)
    ),
    "an old zstd's magic": lambda content: struct.pack("<I", 0xFD2FB527) + content,
    "gzip": lambda content: gzip.compress(content),
    "zeros": lambda content: bytes(100),
    "the stream as it is": lambda content: content,
    "noise": lambda content: bytes(range(256)) * 8,
    "another stream": lambda content: frames.store(content[::-1]),
}.items():
    case(f"frame: {name}", frame(make), unpack=DAMAGED | INPUT, verify=DAMAGED | INPUT)
sound("frame: a checksum that is right", frame(lambda content: sized(content, write_checksum=True)))
sound(
    "frame: 16 MiB of 4 bytes each", lambda one: one.rebuild((*GOOD, ("weights/z", "file", bytes(2**23), "")))
)

# the tar stream: every digest is right, and a header says something else than the manifest

for name, at, data in (
    ("another name", 0, b"weights/b\0"),
    ("a name above", 0, b"../canary\0"),
    ("an absolute name", 0, b"/etc/passwd\0"),
    ("a prefix", 345, b"../canary"),
    *((f"typeflag {flag!r}", 156, flag) for flag in (bytes([one]) for one in b"1234567\0gxLKSDVN\xff")),
    ("setuid", 100, b"0004755\0"),
    ("writable by all", 100, b"0000666\0"),
    ("another owner", 108, b"0001750\0"),
    ("an owner's name", 265, b"root\0"),
    ("a larger size", 124, b"00000001000\0"),
    ("a size of 8 GiB", 124, b"77777777777\0"),
    ("a size in base 256", 124, b"\x80" + b"\xff" * 11),
    ("no size", 124, b"00000000000\0"),
    ("another time", 136, b"77777777777\0"),
    ("a link's target", 157, b"../canary/kept\0"),
    ("GNU's magic", 257, b"ustar  \0"),
    ("no magic", 257, bytes(8)),
    ("a device's number", 329, b"0000010\0"),
    ("something unused", 500, b"evil"),
):
    damaged(f"tar: {name}", lambda one, a=at, d=data: one.header("weights/a", a, d))
damaged("tar: a wrong checksum", lambda one: one.header("weights/a", 148, b"000000\0 ", checksum=False))
damaged("tar: a link with another target", lambda one: one.header("weights/l", 157, b"/etc/passwd\0"))


def stream(alter: Callable[[bytearray], object]) -> Make:
    def altered(data: bytearray) -> bytearray:
        alter(data)
        return data

    return lambda one: one.rebuild(alter=altered)


damaged("tar: something in the padding", stream(lambda data: data.__setitem__(1535 + 0, 7)))
damaged("tar: something behind the end", stream(lambda data: data.__setitem__(-1, 7)))
damaged(
    "tar: another entry behind the end",
    stream(lambda data: data.__setitem__(slice(-2048, -1536), data[512:1024])),
)
bad_input("tar: no end", stream(lambda data: data.__delitem__(slice(-512, None))))
bad_input("tar: twice", stream(lambda data: data.extend(data)))
seen("tar: other content than the digest", stream(lambda data: data.__setitem__(1024, 7)))
