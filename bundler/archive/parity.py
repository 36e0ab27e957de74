"""Parity volumes as they are laid out: which files they cover, and what lies where in them.

The files of a bundle are dealt out to groups. A group's files, each padded with zeros to the longest, are cut
into stripes; of the pieces of one stripe, one a file, Reed–Solomon makes ``parity`` pieces more, one for each
parity volume of the group. Any pieces of a stripe that are lost, up to that number, can be made again.

A parity volume is a header, which carries the manifest and the digests of what is covered, and one record a
stripe, which carries the digests of all its pieces. ``docs/FORMAT.md`` specifies both.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blake3 import blake3

from bundler.archive import sums

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bundler.archive.frames import Buffer
    from bundler.manifest import Manifest, Parity

MOST_DATA = 100
"""The most files of a group: with stripes of :data:`STRIPE` a stripe's pieces take 100 MiB of memory."""
STRIPE = 2**20
"""Bytes of a piece: long enough that a disk's head doesn't spend its time between the files."""
DIGEST = 16
"""Bytes of a piece's digest: a BLAKE3, cut. It finds damage; that nothing was altered, sha256 says."""

_MAGIC = b"bndlPAR1"
_FIXED = struct.Struct("<8sQQQ")
_HEADER_DIGEST = 32


@dataclass(frozen=True)
class CoveredFile:
    """A file that can be mended."""

    name: str
    size: int
    sha256: str

    def piece(self, stripe: int, number: int) -> int:
        """Return how many of the file's bytes are in a stripe.

        :param stripe: bytes of a whole piece.
        :param number: the stripe's, from 0.
        """
        return min(stripe, max(0, self.size - stripe * number))


@dataclass(frozen=True)
class ParityGroup:
    """Files that are protected together, and the geometry that follows."""

    number: int
    """From 0."""
    files: tuple[CoveredFile, ...]
    parity: int
    """How many parity volumes it has: files that may be lost."""
    stripe: int
    """Bytes of a piece."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its parity volumes."""
        first = self.number * self.parity
        return tuple(sums.PARITY_NAME.format(first + number + 1) for number in range(self.parity))

    @property
    def longest(self) -> int:
        """Bytes of the longest file, which are those of the pieces in one parity volume."""
        return max(file.size for file in self.files)

    @property
    def stripes(self) -> int:
        """How many stripes there are."""
        return -(-self.longest // self.stripe)

    @property
    def pieces(self) -> int:
        """How many pieces a stripe has: data, then parity."""
        return len(self.files) + self.parity

    @property
    def row(self) -> int:
        """Bytes of the digests before a record's piece: one for each piece, and one of these."""
        return DIGEST * (self.pieces + 1)

    def width(self, stripe: int) -> int:
        """Return the bytes of a stripe's pieces; the last one may be shorter."""
        return min(self.stripe, self.longest - self.stripe * stripe)

    def record(self, stripe: int) -> int:
        """Return where a stripe's record begins, counted from the header's end."""
        return stripe * (self.row + self.stripe)

    def volume_size(self, header: int) -> int:
        """Return the bytes of each parity volume.

        :param header: bytes of its header.
        """
        return header + self.stripes * self.row + self.longest


def covered_files(manifest: Manifest, digests: Mapping[str, str]) -> list[CoveredFile]:
    """Return what a bundle's parity covers: the volumes, then its other files by name.

    :param digests: of ``SHA256SUMS``, by name.
    """
    assert manifest.parity is not None
    others = manifest.parity.files
    volumes = [CoveredFile(one.name, one.size, one.sha256) for one in manifest.volumes]
    return volumes + [CoveredFile(one.name, one.size, digests.get(one.name, "")) for one in others]


def groups_of(parity: Parity, files: Sequence[CoveredFile]) -> list[ParityGroup]:
    """Deal the files out to as few groups as there may be; neighbours on a disk come into different ones."""
    count = -(-len(files) // parity.data)
    return [
        ParityGroup(number, tuple(files[number::count]), parity.parity, parity.stripe)
        for number in range(count)
    ]


def least_bytes(count: int, volume_size: int, data: int) -> int:
    """Return about how many bytes the parity volumes take at least.

    :param count: parity volumes of a group.
    :param data: bytes of the volumes of data.
    """
    groups = -(-data // (volume_size * MOST_DATA))
    return groups * count * min(volume_size, data)


def digest_of_piece(data: Buffer) -> bytes:
    """Return a piece's digest, of the bytes that the file has there, without padding."""
    return blake3(data).digest(DIGEST)


def seal(digests: Iterable[bytes]) -> bytes:
    """Return a record's row: the pieces' digests, and one of these."""
    row = b"".join(digests)
    return row + digest_of_piece(row)


def unseal(row: bytes) -> list[bytes] | None:
    """Return the pieces' digests of a row, or ``None`` where it is damaged."""
    body = row[:-DIGEST]
    if len(row) % DIGEST or digest_of_piece(body) != row[-DIGEST:]:
        return None
    return [body[at : at + DIGEST] for at in range(0, len(body), DIGEST)]


@dataclass(frozen=True)
class ParityHeader:
    """What each parity volume carries of the files that parity doesn't cover."""

    manifest: bytes
    """``manifest.json``."""
    listed: bytes
    """``SHA256SUMS`` without the lines of parity volumes, which it can't know."""

    def encode(self, number: int) -> bytes:
        """Return the bytes that a parity volume begins with.

        :param number: the volume's, from 1.
        """
        fixed = _FIXED.pack(_MAGIC, number, len(self.manifest), len(self.listed))
        body = b"".join((fixed, self.manifest, self.listed))
        return body + blake3(body).digest()

    def __len__(self) -> int:
        """Return its bytes, the same in each volume."""
        return _FIXED.size + len(self.manifest) + len(self.listed) + _HEADER_DIGEST


def announced(beginning: bytes) -> int | None:
    """Return how long a header says it is, or ``None`` where it isn't one.

    :param beginning: a file's first :data:`ANNOUNCEMENT` bytes.
    """
    if len(beginning) < ANNOUNCEMENT:
        return None
    magic, _, manifest, listed = _FIXED.unpack(beginning[:ANNOUNCEMENT])
    return _FIXED.size + int(manifest) + int(listed) + _HEADER_DIGEST if magic == _MAGIC else None


def decode_header(data: bytes) -> ParityHeader | None:
    """Return a header, or ``None`` where it is damaged."""
    if announced(data) != len(data) or blake3(data[:-_HEADER_DIGEST]).digest() != data[-_HEADER_DIGEST:]:
        return None
    _, _, manifest, _ = _FIXED.unpack(data[:ANNOUNCEMENT])
    body = data[ANNOUNCEMENT:-_HEADER_DIGEST]
    return ParityHeader(body[:manifest], body[manifest:])


ANNOUNCEMENT = _FIXED.size
"""Bytes of a header that say how long it is."""
