"""The weights: shards, their index, and what config.json counts, checked against each other."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

from bundler.collect.models import config as configs
from bundler.collect.models.index import check_index
from bundler.collect.models.loaded_weights import INDEX, NUMBERED, grouped, loaded_weights
from bundler.collect.models.small_files import POINTER_LIMIT, wrong_kind
from bundler.common.threads import each
from bundler.errors import DamagedError
from bundler.safetensors import Header, read_header

if TYPE_CHECKING:
    import threading
    from collections.abc import Collection, Iterable

    from bundler.collect.models.proof import Proof

READERS = 8
"""Shards' headers that are read at once."""
LAYER = re.compile(r"(?:model\.)?(?:language_model\.)?(?:model\.)?layers\.(\d+)\.")


def check_weights(proof: Proof, config: dict[str, Any]) -> tuple[str, ...]:
    """Check shards and indexes, those too that aren't loaded; return the files that SGLang loads."""
    shards = sorted(path for path in proof.sizes if path.endswith(".safetensors"))
    _read_headers(proof, [path for path in shards if path not in proof.broken])
    named = _check_indexes(proof)
    loaded = loaded_weights(proof.sizes, named)
    if INDEX not in proof.sizes:
        _check_numbers(proof, loaded)
    _check_places(proof, loaded, shards)
    _check_layers(proof, configs.full_layers(config), loaded)
    return loaded


def _check_indexes(proof: Proof) -> list[str]:
    """Check the index that the server reads, and others as far as they are of what is here.

    :returns: the shards that the first names.
    """
    named, before = list[str](), len(proof.findings)
    if INDEX in proof.sizes:
        named = check_index(proof, INDEX)
        if _check_versions(proof, named):
            proof.contradictions = len(proof.findings) - before
    for path in sorted(proof.sizes):
        if path.endswith(".safetensors.index.json") and path != INDEX:
            check_index(proof, path, binding=False)
    return named


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


def _check_versions(proof: Proof, named: Collection[str]) -> bool:
    """Say so where shards are missing and others are there: the index then belongs to another version.

    :returns: whether the index alone may be what is wrong.
    """
    if set(named) <= set(proof.sizes):
        return True
    others = sorted(path for path in loaded_weights(proof.sizes) if path not in named)
    if others:
        proof.findings.append(
            f"{INDEX} doesn't name {', '.join(grouped(others))}: index and shards are of two versions"
        )
    return bool(others)


def _check_numbers(proof: Proof, shards: Iterable[str]) -> None:
    """Without an index, the numbers in the shards' names tell which are missing."""
    missing = set()
    for match in filter(None, map(NUMBERED.fullmatch, shards)):
        for number in range(1, int(match["count"]) + 1):
            name = f"{match['stem']}-{number:0{len(match['number'])}}-of-{match['count']}.safetensors"
            missing |= {name} - set(proof.sizes)
    proof.say((f"{name} is missing" for name in sorted(missing)), "missing shards")
    if missing:
        proof.findings.append(f"{INDEX} is missing, though the weights are in numbered shards")


def _check_places(proof: Proof, loaded: Collection[str], shards: Collection[str]) -> None:
    """Check that there are weights, and that all lie where they are loaded from."""
    below = [path for path in loaded if "/" in path] or ([] if loaded else shards)
    if below:
        names = ", ".join(grouped(below))
        proof.findings.append(f"{names}: SGLang loads weights that lie beside config.json, none in folders")
    elif not loaded:
        proof.findings.append("there are no weights: no *.safetensors")


def _check_layers(proof: Proof, layers: int | None, loaded: Iterable[str]) -> None:
    """Check that each layer that config.json counts has tensors."""
    seen = {
        int(match[1])
        for path in loaded
        if path in proof.headers
        for tensor in proof.headers[path].tensors
        if (match := LAYER.match(tensor.name))
    }
    if layers is None or not seen or layers > 10_000 or proof.findings:
        return
    absent = sorted(set(range(layers)) - seen)
    proof.say(
        (f"layer {number} has no tensors; config.json counts {layers}" for number in absent), "empty layers"
    )
