"""Safetensors files of a few bytes, and their index."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def write_shard(path: Path, tensors: Mapping[str, int], dtype: str = "BF16") -> None:
    """Write a whole safetensors file.

    :param tensors: each tensor's number of elements, of two bytes each, by its name.
    """
    header, place = {}, 0
    for name, count in tensors.items():
        header[name] = {"dtype": dtype, "shape": [count], "data_offsets": [place, place + 2 * count]}
        place += 2 * count
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(place))


def write_index(path: Path, shards: Mapping[str, Mapping[str, int]]) -> None:
    """Write the index of shards: their tensors by their files' names."""
    places = {tensor: shard for shard, tensors in shards.items() for tensor in tensors}
    path.write_text(json.dumps({"metadata": {}, "weight_map": places}))
