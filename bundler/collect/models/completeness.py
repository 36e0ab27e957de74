"""Proof that a model is whole, from its small files and its shards' headers alone.

The data of the shards is not read here: their digests are checked where they are fetched or packed.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from bundler.collect.models import config as configs
from bundler.collect.models.code import code_fault, imported_beside
from bundler.collect.models.listing import PICKLES
from bundler.collect.models.small_files import POINTER_LIMIT, decode, fault, is_read, wrong_kind
from bundler.common.threads import each
from bundler.errors import DamagedError
from bundler.safetensors import Header, read_header

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from bundler.collect.models.listing import Listing
    from bundler.model import ModelFacts, ModelSpec

SMALL_LIMIT = 256 << 20
"""No file of a model that is parsed is longer, in bytes; a longer one is not read."""
MEND = "put the publisher's files in place of those named here; those that are whole can stay"
"""What mends a model that lies in a folder."""
OTHERS = {
    "adapter_config.json": "this is an adapter, no model: pack the base model that it names",
    "model_index.json": "this is a diffusers pipeline of several models",
    "params.json": "this is in Mistral's own format: take the version with config.json",
}
"""What a folder without config.json is, by a file that tells."""
READERS = 8
"""Shards' headers that are read at once."""
SHOWN = 12
"""Findings of one kind that are listed before the rest is counted."""

_NUMBERED = re.compile(r"(?P<stem>.*)-(?P<number>\d{5,})-of-(?P<count>\d{5,})\.safetensors")
HEAD = "lm_head.weight"
_LAYER = re.compile(r"(?:model\.)?(?:language_model\.)?(?:model\.)?layers\.(\d+)\.")


@dataclass
class Reader:
    """Sizes of all files, and bytes of any."""

    where: str
    """The place, for messages."""
    sizes: Mapping[str, int]
    """Bytes of each file, by its path."""
    read: Callable[[str, int, int], bytes]
    """Returns so many bytes of a file from a place on; fewer at its end."""
    interrupt: Callable[[], None] = lambda: None
    """Ends every reading now, also one that waits for a host."""


def folder_reader(root: Path, listing: Listing) -> Reader:
    """Return how a folder is read: the files that a listing wants, as far as they are there."""

    def read(path: str, offset: int, length: int) -> bytes:
        with (root / path).open("rb") as file:
            file.seek(offset)
            return file.read(length)

    there = [file.path for file in listing.files if (root / file.path).exists()]
    return Reader(str(root), {path: (root / path).stat().st_size for path in there}, read)


@dataclass
class _Proof:
    """One proof under way: what was read, and all that is wrong."""

    reader: Reader
    sizes: Mapping[str, int]
    allow_pickle: bool
    findings: list[str] = field(default_factory=list)
    headers: dict[str, Header] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    """Files that were named as broken."""
    parsed: dict[str, dict[str, Any]] = field(default_factory=dict)

    def say(self, lines: Iterable[str], more: str) -> None:
        """Add findings of one kind, the first of them in full."""
        every = list(lines)
        self.findings += every[:SHOWN]
        if len(every) > SHOWN:
            self.findings.append(f"… and {len(every) - SHOWN} more {more}")

    def json(self, path: str) -> dict[str, Any]:
        """Return a JSON object, or an empty one where the file is absent or broken."""
        if path not in self.parsed:
            data = self.bytes(path)
            value, problem = decode(data) if data is not None else ({}, None)
            if problem is not None:
                self.spoil(path, wrong_kind(data or b"") or problem)
            self.parsed[path] = value
        return self.parsed[path]

    def bytes(self, path: str) -> bytes | None:
        """Return a small file's bytes; ``None`` where it is absent, known to be broken, or too long."""
        if path not in self.sizes or path in self.broken:
            return None
        if self.sizes[path] > SMALL_LIMIT:
            self.spoil(path, f"is {self.sizes[path]} bytes long: no such file of a model is")
            return None
        return self.reader.read(path, 0, self.sizes[path])

    def spoil(self, path: str, problem: str) -> None:
        """Add a finding of a file that nothing else is to be said of."""
        self.broken.add(path)
        self.findings.append(f"{path} {problem}")


def prove(
    reader: Reader, *, spec: ModelSpec | None = None, allow_pickle: bool = False, mend: str = MEND
) -> ModelFacts:
    """Prove a model complete and derive its facts.

    :param spec: the model's manifest: where it says that the model calls tools or reasons, a chat template
        must be there.
    :param allow_pickle: accept a checkpoint of pickles, of which nothing can be proved.
    :param mend: the hint of the error: what mends such a model, which depends on where it comes from.
    :raises DamagedError: naming everything that is missing, cut off or contradicts itself, all at once.
    :raises FetchError: a hub failed while it was read.
    """
    proof = _Proof(reader, reader.sizes, allow_pickle)
    _check_pointers(proof)
    _check_small_files(proof)
    config = _check_config(proof)
    maps = _check_weights(proof, config)
    code = _check_code(proof)
    template = _check_tokenizer(proof, spec)
    if proof.findings:
        raise DamagedError(
            "the model is not whole",
            where=reader.where,
            hint=mend,
            findings=proof.findings,
        )
    return _facts(proof, config, maps, code, template)


def _check_pointers(proof: _Proof) -> None:
    """Name every git LFS pointer: a clone without LFS has them wherever a large file should be."""
    for path, size in sorted(proof.sizes.items()):
        if 0 < size < POINTER_LIMIT and not path.endswith((".py", ".md")):
            problem = wrong_kind(proof.reader.read(path, 0, size))
            if problem is not None and "LFS" in problem:
                proof.spoil(path, problem)


def _check_small_files(proof: _Proof) -> None:
    """Parse what the server reads beside the weights."""
    for path in sorted(proof.sizes):
        data = proof.bytes(path) if is_read(path) else None
        if data is not None and (problem := fault(path, data)) is not None:
            proof.spoil(path, problem)


def _check_config(proof: _Proof) -> dict[str, Any]:
    config = proof.json("config.json")
    if "config.json" not in proof.sizes:
        whose = next((what for name, what in OTHERS.items() if name in proof.sizes), "")
        proof.findings.append("config.json is missing" + (f": {whose}" if whose else ""))
    elif "config.json" not in proof.broken and not isinstance(config.get("architectures"), list):
        proof.findings.append("config.json names no architecture: SGLang can't tell what model it is")
    return config


def _check_weights(proof: _Proof, config: dict[str, Any]) -> list[str]:
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


def _read_headers(proof: _Proof, shards: list[str]) -> None:
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


def _check_index(proof: _Proof, path: str) -> list[str]:
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


def _check_numbers(proof: _Proof, shards: list[str]) -> None:
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


def _check_layers(proof: _Proof, layers: int | None) -> None:
    """Check that each layer that config.json counts has tensors."""
    seen = {
        int(match[1])
        for header in proof.headers.values()
        for tensor in header.tensors
        if (match := _LAYER.match(tensor.name))
    }
    if layers is None or not seen or layers > 10_000 or proof.findings:
        return
    absent = sorted(set(range(layers)) - seen)
    proof.say(
        (f"layer {number} has no tensors; config.json counts {layers}" for number in absent), "empty layers"
    )


def _check_code(proof: _Proof) -> tuple[str, ...]:
    parsed = {name: proof.json(name) for name in configs.AUTO_MAP_FILES if name in proof.sizes}
    code, elsewhere = configs.remote_code(parsed)
    proof.say(
        (f"{name} is missing: auto_map names it" for name in code if name not in proof.sizes), "code files"
    )
    proof.say(
        (
            f"auto_map names code of another repository ({word}): copy it beside, name it without '--'"
            for word in elsewhere
        ),
        "references to other repositories",
    )
    _check_modules(proof, code)
    return code


def _check_modules(proof: _Proof, code: tuple[str, ...]) -> None:
    """Parse the modules that a config names, and those beside them that they import."""
    waiting, seen = list(code), set[str]()
    while waiting:
        name = waiting.pop()
        data = proof.bytes(name) if name not in seen else None
        seen.add(name)
        if data is None:
            continue
        if (problem := code_fault(data)) is not None:
            proof.spoil(name, problem)
            continue
        beside = [f"{name.rpartition('/')[0]}/{path}".lstrip("/") for path in imported_beside(data)]
        lacking = (path for path in beside if path not in proof.sizes and path not in seen)
        proof.say((f"{path} is missing: {name} imports it" for path in lacking), "code files")
        waiting += beside


def _check_tokenizer(proof: _Proof, spec: ModelSpec | None) -> bool:
    """Check that there is a tokenizer; return whether there is a chat template."""
    names = {path for path in proof.sizes if "/" not in path}
    if not names & set(configs.TOKENIZERS) and not any(name.endswith(".tiktoken") for name in names):
        proof.findings.append(f"there is no tokenizer: none of {', '.join(configs.TOKENIZERS)}")
    elif "vocab.json" in names and not names & {"tokenizer.json", "merges.txt", "tokenizer.model"}:
        proof.findings.append("merges.txt is missing: vocab.json alone is no tokenizer")
    template = bool(names & set(configs.TEMPLATES)) or bool(
        proof.json("tokenizer_config.json").get("chat_template")
    )
    if not template and spec is not None and (spec.smoke.tools or spec.smoke.reasoning):
        proof.findings.append(
            "there is no chat template: neither chat_template.jinja nor tokenizer_config.json has one"
        )
    return template


def _facts(
    proof: _Proof, config: dict[str, Any], loaded: list[str], code: tuple[str, ...], template: bool
) -> ModelFacts:
    shape = configs.read_shape(config)
    tensors = [tensor for path in loaded for tensor in proof.headers[path].tensors]
    by_dtype: Counter[str] = Counter()
    draft = 0
    for tensor in tensors:
        by_dtype[tensor.dtype] += tensor.size
        match = _LAYER.match(tensor.name)
        if match and shape.layers is not None and int(match[1]) >= shape.layers:
            draft += tensor.size
    pickled = sum(size for path, size in proof.sizes.items() if path.endswith(PICKLES))
    return msgspec.structs.replace(
        shape,
        dtype=by_dtype.most_common(1)[0][0] if by_dtype else None,
        weight_bytes=sum(tensor.size for tensor in tensors) or pickled,
        draft_weight_bytes=draft,
        parameters=sum(tensor.elements for tensor in tensors) or None,
        shards=len(loaded),
        chat_template=template,
        remote_code=code,
        license=_license(proof),
    )


def _license(proof: _Proof) -> str | None:
    if "README.md" not in proof.sizes:
        return None
    text = proof.reader.read("README.md", 0, min(proof.sizes["README.md"], 1 << 16))
    return configs.card_license(text.decode("utf-8", "replace"))
