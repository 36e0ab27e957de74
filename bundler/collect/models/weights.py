"""The weights: shards, their index, and what config.json counts, checked against each other."""

from __future__ import annotations

import re
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

from bundler.collect.models import config as configs
from bundler.collect.models.listing import PICKLES
from bundler.collect.models.small_files import POINTER_LIMIT, wrong_kind
from bundler.common.threads import each
from bundler.errors import DamagedError
from bundler.safetensors import Header, read_header

if TYPE_CHECKING:
    import threading

    from bundler.collect.models.proof import Proof

READERS = 8
"""Shards' headers that are read at once."""
HEAD = "lm_head.weight"
LAYER = re.compile(r"(?:model\.)?(?:language_model\.)?(?:model\.)?layers\.(\d+)\.")
_NUMBERED = re.compile(r"(?P<stem>.*)-(?P<number>\d{5,})-of-(?P<count>\d{5,})\.safetensors")


def check_weights(proof: Proof, config: dict[str, Any]) -> list[str]:
    """Check shards, index and pickles; return the shards that SGLang loads."""
    shards = sorted(path for path in proof.sizes if path.endswith(".safetensors"))
    readable = [path for path in shards if path not in proof.broken]
    pickles = sorted(path for path in proof.sizes if path.endswith(PICKLES))
    indexes = sorted(path for path in proof.sizes if path.endswith(".safetensors.index.json"))
    if not shards and not indexes:
        if pickles and not proof.allow_pickle:
            proof.findings.append(
                f"the weights are pickles ({', '.join(pickles[:3])}), which run code when they are loaded: "
                "take a safetensors version, or --allow-pickle"
            )
        elif not pickles:
            gguf = sorted(path for path in proof.sizes if path.endswith(".gguf"))
            proof.findings.append(
                f"the weights are GGUF ({', '.join(gguf[:3])}), not proved here: take safetensors"
                if gguf
                else "there are no weights: no *.safetensors"
            )
        return []
    _read_headers(proof, readable)
    mapped = [name for index in indexes for name in _check_index(proof, index)]
    if not indexes:
        _check_numbers(proof, shards)
    _check_layers(proof, configs.read_shape(config).layers)
    return sorted(set(mapped)) or shards


def _read_headers(proof: Proof, shards: list[str]) -> None:
    found: dict[str, Header | DamagedError] = {}

    def read(path: str, _: threading.Event) -> tuple[str, Header | DamagedError]:
        try:
            return path, read_header(partial(proof.reader.read, path), proof.sizes[path], path)
        except DamagedError as problem:
            return path, problem

    def interrupt() -> None:
        if len(found) < len(shards):
            proof.reader.interrupt()

    for path, result in each(read, shards, threads=READERS, on_stop=interrupt):
        found[path] = result
    for path in shards:
        result = found[path]
        if isinstance(result, DamagedError):
            start = proof.reader.read(path, 0, min(proof.sizes[path], POINTER_LIMIT))
            problem = wrong_kind(start)
            said = [f"{path} {problem}"] if problem else [f"{path}: {one}" for one in result.findings]
            proof.findings += said
        else:
            proof.headers[path] = result


def _check_index(proof: Proof, path: str) -> list[str]:
    """Compare an index with the shards' headers, both ways; return the shards it names."""
    weight_map = proof.json(path).get("weight_map")
    if path in proof.broken:
        return []
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        proof.findings.append(f"{path} has no weight_map")
        return []
    folder = path.rpartition("/")[0]
    placed = {tensor: f"{folder}/{name}" if folder else name for tensor, name in weight_map.items()}
    named = Counter(placed.values())
    tied = _is_tied(proof.json("config.json"))
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


def _is_tied(config: dict[str, Any]) -> bool:
    """Return whether the head is the embedding's matrix once more, which then needs no tensor of its own."""
    text = config.get("text_config")
    inner = text if isinstance(text, dict) else {}
    said = config.get("tie_word_embeddings", inner.get("tie_word_embeddings"))
    # Gemma's config classes tie by default, and their config.json says nothing.
    return bool(said) if said is not None else str(config.get("model_type")).startswith("gemma")


def _check_numbers(proof: Proof, shards: list[str]) -> None:
    """Without an index, the numbers in the shards' names tell which are missing."""
    match = next(filter(None, map(_NUMBERED.fullmatch, shards)), None)
    if match is None:
        return
    wanted = (
        f"{match['stem']}-{number:0{len(match['number'])}}-of-{match['count']}.safetensors"
        for number in range(1, int(match["count"]) + 1)
    )
    proof.say((f"{name} is missing" for name in wanted if name not in proof.sizes), "missing shards")
    proof.findings.append(
        "model.safetensors.index.json is missing, though the weights are in numbered shards"
    )


def _check_layers(proof: Proof, layers: int | None) -> None:
    """Check that each layer that config.json counts has tensors."""
    seen = {
        int(match[1])
        for header in proof.headers.values()
        for tensor in header.tensors
        if (match := LAYER.match(tensor.name))
    }
    if layers is None or not seen or layers > 10_000 or proof.findings:
        return
    absent = sorted(set(range(layers)) - seen)
    proof.say(
        (f"layer {number} has no tensors; config.json counts {layers}" for number in absent), "empty layers"
    )
