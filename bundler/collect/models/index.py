"""The index of a model's shards: which tensor lies in which file."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from bundler.collect.models.config import HEAD, is_tied
from bundler.collect.models.small_files import decode

if TYPE_CHECKING:
    from bundler.collect.models.proof import Proof


def weight_map(value: dict[str, Any]) -> dict[str, str] | None:
    """Return the file of each tensor, as an index names them; ``None`` where it is no index."""
    found = value.get("weight_map")
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found.values()):
        return None
    return found


def named_files(data: bytes) -> tuple[str, ...]:
    """Return the files that an index names; none where its bytes are no index."""
    return tuple(sorted(set((weight_map(decode(data)[0]) or {}).values())))


def check_index(proof: Proof, path: str, *, binding: bool = True) -> list[str]:
    """Compare an index with the shards' headers, both ways; return the shards it names.

    :param binding: whether the server reads it; another index counts only where a shard of it is there.
    """
    places = weight_map(proof.json(path))
    if path in proof.broken:
        return []
    if places is None:
        proof.findings += [f"{path} has no weight_map"] if binding else []
        return []
    folder = path.rpartition("/")[0]
    placed = {tensor: f"{folder}/{name}" if folder else name for tensor, name in places.items()}
    named = Counter(placed.values())
    if not binding and not set(named) & set(proof.sizes):
        return []
    tied = is_tied(proof.json("config.json"))
    proof.say(
        (
            f"{shard} is missing: the index puts {count} tensors there"
            for shard, count in sorted(named.items())
            if shard not in proof.sizes
        ),
        "missing shards",
    )
    held = {
        shard: {tensor.name for tensor in proof.headers[shard].tensors}
        for shard in named
        if shard in proof.headers
    }
    proof.say(
        (
            f"{shard} lacks {tensor}, which the index puts there"
            for tensor, shard in sorted(placed.items())
            if shard in held and tensor not in held[shard] and not (tied and tensor.endswith(HEAD))
        ),
        "tensors that shards lack",
    )
    proof.say(
        (
            f"{shard} holds {tensor}, which the index "
            + (f"puts into {placed[tensor]}" if tensor in placed else "doesn't know")
            for shard in sorted(held)
            for tensor in sorted(held[shard])
            if placed.get(tensor) != shard
        ),
        "tensors that the index doesn't expect there",
    )
    return sorted(named)
