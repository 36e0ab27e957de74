"""gzip on all cores: stock tools read it, and the threads leave no trace."""

from __future__ import annotations

import gzip
import io
import random
import subprocess

import pytest

from bundler.runtime.gzipped import BLOCK, GzipWriter


def compressed(data: bytes, *, threads: int, step: int) -> bytes:
    """Compress in writes of ``step`` bytes."""
    target = io.BytesIO()
    with GzipWriter(target, 6, threads) as writer:
        for start in range(0, len(data), step):
            writer.write(data[start : start + step])
    return target.getvalue()


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7])
def test_the_bytes_depend_on_the_content_alone(size: int) -> None:
    source = random.Random(size)
    data = (source.randbytes(size // 2) + b"text that repeats " * (size // 30 + 1))[:size]
    first = compressed(data, threads=1, step=70_001)
    assert compressed(data, threads=4, step=1 << 19) == first
    assert gzip.decompress(first) == data
    assert subprocess.run(["gzip", "-dc"], input=first, capture_output=True, check=True).stdout == data


def test_blocks_know_what_came_before() -> None:
    # 24 KiB that repeat: within the window, so every block but the first is nearly nothing.
    data = random.Random(0).randbytes(24 * 1024) * 200
    assert len(compressed(data, threads=2, step=BLOCK)) < 24 * 1024 * 2.5


def test_an_error_while_writing_ends_the_threads() -> None:
    with pytest.raises(ValueError, match="no more"), GzipWriter(io.BytesIO(), 6, 2) as writer:
        writer.write(bytes(2 * BLOCK))
        raise ValueError("no more")
    assert writer._pool._shutdown
