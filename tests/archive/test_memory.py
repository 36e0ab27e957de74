"""Resident memory stays flat, however much is packed."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = 400_000
"""KiB, the design's bound."""
A_THREAD = 32_000
"""KiB more that a pack may take for each thread, as its ``--help`` says."""
SIZE = 4 * 2**30

PROGRAM = """
import resource, sys
from pathlib import Path
from bundler.archive.bundle import Bundle
from bundler.archive.member import FileSource, Member
from bundler.archive.recipe import Recipe, current_writer
from bundler.archive.unpack import unpack_bundle
from bundler.archive.writer import write_bundle
from bundler.manifest import Manifest

work, threads, size = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
source = FileSource(work / "big")
members = [Member(f"weights/{n}", "file", size // 4, source=source) for n in range(4)]
head = Manifest(name="big", writer=current_writer())
write_bundle(Recipe(head=head, members=members), [work / "bundle"], threads=threads)
write_bundle(Recipe(head=head, members=members[:1]), [work / "small"], threads=threads)
packed = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with Bundle.open([work / "small"]) as bundle:
    unpack_bundle(bundle, work / "out", threads=threads)
print(packed, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.parametrize(("threads", "size"), [(2, SIZE), (16, SIZE // 2)])
def test_memory_of_pack_and_unpack(tmp_path: Path, threads: int, size: int) -> None:
    """Files with holes and noise, larger than the bound; a quarter is unpacked. 16 threads stay below too."""
    with (tmp_path / "big").open("wb") as file:
        file.truncate(size // 4)
        for place in range(0, size // 4, 2**28):
            file.seek(place)
            file.write(bytes(range(256)) * 2**14)
    arguments = [sys.executable, "-c", PROGRAM, str(tmp_path), str(threads), str(size)]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    packed, unpacked = map(int, done.stdout.split())
    assert packed < LIMIT + threads * A_THREAD, f"pack took {packed} KiB"
    assert unpacked < LIMIT, f"unpack took {unpacked} KiB"
