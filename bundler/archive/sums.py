"""``SHA256SUMS``: every file of a bundle but itself, its signature and the log, for ``sha256sum -c``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bundler.common.digest import sha256_of
from bundler.errors import DamagedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

SUMS = "SHA256SUMS"
MANIFEST = "manifest.json"
README = "README.txt"
SIGNATURE = SUMS + ".sig"
LOG = "pack-log.json"
PARITY_NAME = "parity-{:05}.zfec"
"""A parity volume's name from its number, which begins at 1."""
LARGEST_MANIFEST, LARGEST_SUMS = 2**27, 2**22
"""Bytes; a bundle of 10 TB has a manifest of 2**27 and sums of 2**17. Longer ones aren't read."""
UNLISTED = frozenset({SUMS, SIGNATURE, LOG})
"""Files of a bundle that the sums don't list."""

LONGEST_LINE = 100
"""Bytes of a volume's line, and of a parity volume's, at most."""

_LINE = re.compile(r"([0-9a-f]{64}) [ *]([A-Za-z0-9_][A-Za-z0-9_.+-]{0,254})")


def render(digests: Mapping[str, str]) -> bytes:
    """Return the sums file: one line a file, sorted by name."""
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items())).encode()


def parse(data: bytes, where: Path) -> dict[str, str]:
    """Return each file's digest by name.

    :raises DamagedError: a line that isn't one, a name with a folder in it, or a name twice.
    """
    found: dict[str, str] = {}
    # At \n alone, and as bytes: what another tool would read as one line, or not as text, isn't a sum here.
    for number, line in enumerate(data.removesuffix(b"\n").split(b"\n"), 1):
        match = _LINE.fullmatch(line.decode("ascii", "replace"))
        if match is None or match[2] in found:
            raise DamagedError(
                f"line {number} of {SUMS} is not a checksum",
                where=where,
                hint="copy the bundle's SHA256SUMS again",
            )
        found[match[2]] = match[1]
    return found


def digest_in(folders: Iterable[Path]) -> str:
    """Return the sha256 of a bundle's sums file: it lies in each folder that holds a part."""
    return sha256_of(next(path for folder in folders if (path := folder / SUMS).is_file()))


def is_volume(name: str) -> bool:
    """Tell whether a name is a data volume's."""
    return name.startswith("data-") and name.endswith(".tar.zst")


def is_parity(name: str) -> bool:
    """Tell whether a name is a parity volume's."""
    return name.startswith("parity-") and name.endswith(".zfec")
