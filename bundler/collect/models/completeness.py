"""Proof that a model is whole, from its small files and its shards' headers alone.

The data of the shards is not read here: their digests are checked where they are fetched or packed.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec

from bundler.collect.models import config as configs
from bundler.collect.models.beside import (
    check_code,
    check_config,
    check_pointers,
    check_small_files,
    check_tokenizer,
)
from bundler.collect.models.loaded_weights import DRAFT, INDEX
from bundler.collect.models.proof import Proof
from bundler.collect.models.weights import LAYER, check_weights
from bundler.errors import DamagedError

if TYPE_CHECKING:
    from bundler.collect.models.reader import Reader
    from bundler.model import ModelFacts, ModelSpec
    from bundler.safetensors import Tensor

MEND = "put the publisher's files in place of those named here; those that are whole can stay"
"""What mends a model that lies in a folder."""
INDEX_OFF = (
    "take another revision or the publisher's own index; where the index alone is off, leave it out by "
    f"files.exclude = ['{INDEX}'] in the model's manifest: SGLang then loads every shard beside config.json"
)
"""What mends a model whose shards are whole and whose index says something else of them."""


def prove(reader: Reader, *, spec: ModelSpec | None = None, mend: str = MEND) -> ModelFacts:
    """Prove a model complete and derive its facts.

    :param spec: the model's manifest: where it says that the model calls tools or reasons, a chat template
        must be there.
    :param mend: the hint of the error: what mends such a model, which depends on where it comes from.
    :raises DamagedError: naming everything that is missing, cut off or contradicts itself, all at once.
    :raises FetchError: a hub failed while it was read.
    """
    proof = Proof(reader, reader.sizes)
    check_pointers(proof)
    check_small_files(proof)
    config = check_config(proof)
    maps = check_weights(proof, config)
    code = check_code(proof)
    template = check_tokenizer(proof, spec)
    if proof.findings:
        raise DamagedError(
            "the model is not whole",
            where=reader.where,
            hint=INDEX_OFF if proof.contradictions == len(proof.findings) else mend,
            findings=proof.findings,
        )
    return _facts(proof, config, maps, code, template)


def _facts(
    proof: Proof, config: dict[str, Any], loaded: tuple[str, ...], code: tuple[str, ...], template: bool
) -> ModelFacts:
    shape = configs.read_shape(config)
    tensors = _loaded_tensors(proof, config, loaded)
    by_dtype: Counter[str] = Counter()
    draft = 0
    for path, tensor in tensors:
        by_dtype[tensor.dtype] += tensor.size
        match = LAYER.match(tensor.name)
        if path == DRAFT or (match and shape.layers is not None and int(match[1]) >= shape.layers):
            draft += tensor.size
    pickled = sum(proof.sizes[path] for path in loaded if path not in proof.headers)
    return msgspec.structs.replace(
        shape,
        dtype=by_dtype.most_common(1)[0][0] if by_dtype else None,
        weight_bytes=by_dtype.total() or pickled,
        draft_weight_bytes=draft,
        parameters=sum(tensor.elements for _, tensor in tensors) or None,
        shards=sum(path in proof.headers for path in loaded),
        chat_template=template,
        remote_code=code,
        license=_license(proof),
    )


def _loaded_tensors(
    proof: Proof, config: dict[str, Any], loaded: tuple[str, ...]
) -> list[tuple[str, Tensor]]:
    """Return the tensors that take a GPU's memory, with their files.

    One that several files hold is loaded over itself, and a head that is the embedding's matrix has none of
    its own.
    """
    found = {
        tensor.name: (path, tensor)
        for path in loaded
        if path in proof.headers
        for tensor in proof.headers[path].tensors
    }
    tied = configs.is_tied(config)
    return [one for name, one in found.items() if not (tied and name.endswith(configs.HEAD))]


def _license(proof: Proof) -> str | None:
    if "README.md" not in proof.sizes:
        return None
    text = proof.reader.read("README.md", 0, min(proof.sizes["README.md"], 1 << 16))
    return configs.card_license(text.decode("utf-8", "replace"))
