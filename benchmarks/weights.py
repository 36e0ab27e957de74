"""Weights as models have them, for measuring: BF16 numbers drawn from a normal distribution."""

from __future__ import annotations

import array
import hashlib
import random
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from itertools import count, repeat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = 8 * 2**20
"""Bytes that are made at once; each block differs from the others."""


def make_weights(folder: Path, size: int, shards: int) -> list[Path]:
    """Write shards of BF16-like weights and their SHA256SUMS, unless they are there already.

    zstd -1 takes them to 0.78 of their size, as it takes the weights of large models.
    """
    folder.mkdir(parents=True, exist_ok=True)
    each = size // shards // BLOCK * BLOCK
    paths = [folder / f"model-{number + 1:05}-of-{shards:05}.safetensors" for number in range(shards)]
    if all(path.exists() and path.stat().st_size == each for path in paths) and (folder / "sums").exists():
        return paths
    with ProcessPoolExecutor() as pool:
        digests = list(pool.map(_write_shard, paths, count(1), repeat(each // BLOCK)))
    lines = [f"{digest}  {path.name}\n" for digest, path in zip(digests, paths, strict=True)]
    (folder / "sums").write_text("".join(lines))
    return paths


def _write_shard(path: Path, seed: int, blocks: int) -> str:
    """Write one shard, and return its sha256."""
    high, low = _normal_bf16(BLOCK // 2)
    chance = random.Random(seed)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(blocks):
            block = _another(high, low, chance)
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


@cache
def _normal_bf16(count: int) -> tuple[bytes, bytes]:
    """Return the high and the low bytes of normally distributed numbers."""
    chance = random.Random(0)
    data = array.array("f", (chance.gauss(0, 0.02) for _ in range(count))).tobytes()
    return data[3::4], data[2::4]


def _another(high: bytes, low: bytes, chance: random.Random) -> bytes:
    """Return a block of the same distribution: turned round, with other mantissas."""
    turn = chance.randrange(len(high))
    exponents = int.from_bytes(low[turn:] + low[:turn], "little") & int.from_bytes(
        b"\x80" * len(low), "little"
    )
    mantissas = chance.getrandbits(8 * len(low)) & int.from_bytes(b"\x7f" * len(low), "little")
    block = bytearray(2 * len(high))
    block[0::2] = (exponents | mantissas).to_bytes(len(low), "little")
    block[1::2] = high[turn:] + high[:turn]
    return bytes(block)
