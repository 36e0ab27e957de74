"""Zstandard frames: compressed ones, and stored ones that bundler writes itself.

One frame holds one piece of the tar stream and stands alone. Its content size is in its header, its window is
at most 2^27 bytes, it has no checksum of its own: the manifest holds a BLAKE3 of its bytes.
"""

from __future__ import annotations

import struct
import threading

import zstandard
from blake3 import blake3

from bundler.errors import DamagedError

Buffer = bytes | bytearray | memoryview

FRAME_SIZE = 8 * 2**20
"""Bytes of the tar stream in a frame, unless a border or the end comes before."""
LARGEST_FRAME = 16 * 2**20
"""The most a frame of this format may hold; a reader's memory follows from it."""
WINDOW = 2**27
"""The largest window that stock ``zstd -d`` takes without a flag."""
STORE = 0
"""The level that compresses nothing."""

_BLOCK = 128 * 1024
_SAMPLES, _SAMPLE = 16, 16 * 1024
_WORTH = 0.97
"""A frame whose samples don't shrink below this share is stored."""
_MAGIC = 0xFD2FB528
_RLE = 1
"""The type of a block that is one byte, repeated."""
_SINGLE_SEGMENT_FOUR_BYTE_SIZE = 0b1010_0000

_local = threading.local()


def room(name: str, size: int) -> memoryview:
    """Return this thread's buffer of a name, cut to a size: memory is used again, frame after frame."""
    rooms: dict[str, bytearray] = _local.__dict__.setdefault("rooms", {})
    if len(rooms.get(name, b"")) < size:
        rooms[name] = bytearray(size)
    return memoryview(rooms[name])[:size]


def largest_stored(raw: int) -> int:
    """Return the most bytes that a frame of ``raw`` bytes of content may take in a volume."""
    return raw + 3 * (raw // _BLOCK + 1) + 32


def digest(frame: Buffer) -> str:
    """Return the digest of a frame's bytes as the manifest holds it."""
    return blake3(frame).hexdigest()


def store(content: Buffer) -> bytes:
    """Return a frame of raw blocks (RFC 8878, 3.1.1.2): the content as it is, at the speed of a copy."""
    view = memoryview(content)
    parts: list[Buffer] = [struct.pack("<IBI", _MAGIC, _SINGLE_SEGMENT_FOUR_BYTE_SIZE, len(view))]
    for start in range(0, len(view), _BLOCK):
        block = view[start : start + _BLOCK]
        last = start + _BLOCK >= len(view)
        parts += [(len(block) << 3 | last).to_bytes(3, "little"), block]
    return b"".join(parts)


def compress(content: Buffer, level: int) -> bytes:
    """Return a frame: compressed where its own bytes say that it is worth it, else stored.

    The same content, level and libzstd give the same frame, in any thread.

    :param level: zstd's level; ``STORE`` compresses nothing.
    """
    if level == STORE or not _worth_compressing(memoryview(content)):
        return store(content)
    frame = _compressor(level).compress(content)
    return frame if len(frame) < len(memoryview(content)) else store(content)


def _worth_compressing(content: memoryview) -> bool:
    """Judge by samples spread evenly over the content; a short one is judged by compressing it."""
    if len(content) < 2 * _SAMPLES * _SAMPLE:
        return True
    step = (len(content) - _SAMPLE) // (_SAMPLES - 1)
    compressor = _compressor(1)
    shrunk = sum(
        len(compressor.compress(content[start : start + _SAMPLE]))
        for start in range(0, step * (_SAMPLES - 1) + 1, step)
    )
    return shrunk < _WORTH * _SAMPLES * _SAMPLE


def _compressor(level: int) -> zstandard.ZstdCompressor:
    """Return this thread's compressor: a context isn't safe to share, and dear to make."""
    made: dict[int, zstandard.ZstdCompressor] = _local.__dict__.setdefault("compressors", {})
    if level not in made:
        made[level] = zstandard.ZstdCompressor(
            level=level, write_content_size=True, write_checksum=False, write_dict_id=False
        )
    return made[level]


def context_size(level: int, content: int) -> int:
    """Return the bytes that one thread's compressor of a level takes, for bounding memory."""
    if level == STORE:
        return 0
    parameters = zstandard.ZstdCompressionParameters.from_level(level, source_size=content)
    return int(parameters.estimated_compression_context_size())


def decompress(frame: Buffer, into: memoryview) -> None:
    """Decompress one frame whose digest was checked, into exactly the room that the manifest gives it.

    :raises DamagedError: it isn't one frame of that content size. None of it can be trusted then.
    """
    try:
        parameters = zstandard.get_frame_parameters(frame)
        fits = parameters.content_size == len(into) and parameters.window_size <= WINDOW
        begin, checksum = zstandard.frame_header_size(frame), 4 * parameters.has_checksum
        whole = fits and not parameters.dict_id and _blocks_end(frame, begin) + checksum == len(frame)
        if whole and _decompress_exactly(frame, into):
            return
    except zstandard.ZstdError as problem:
        raise DamagedError(f"a frame can't be decompressed: {problem}") from problem
    raise DamagedError("a frame doesn't hold what the manifest says")


def _blocks_end(frame: Buffer, begin: int) -> int:
    """Return the first byte after a frame's last block (RFC 8878, 3.1.1.2), or -1 where there is none.

    libzstd gives the content as soon as it has it: it wouldn't miss what is cut off behind that, nor say what
    else stands there.
    """
    while begin + 3 <= len(frame):
        block = int.from_bytes(frame[begin : begin + 3], "little")
        size = 1 if block >> 1 & 3 == _RLE else block >> 3
        begin += 3 + size
        if block & 1:
            return begin
    return -1


def _decompress_exactly(frame: Buffer, into: memoryview) -> bool:
    decompressor = _local.__dict__.get("decompressor")
    if decompressor is None:
        decompressor = _local.decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW)
    with decompressor.stream_reader(frame, read_across_frames=False) as reader:
        return bool(reader.readinto(into) == len(into) and not reader.read(1))
