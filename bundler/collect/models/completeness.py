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
from bundler.collect.models.listing import PICKLES
from bundler.collect.models.proof import Proof
from bundler.collect.models.weights import LAYER, check_weights
from bundler.errors import DamagedError

if TYPE_CHECKING:
    from bundler.collect.models.reader import Reader
    from bundler.model import ModelFacts, ModelSpec

MEND = "put the publisher's files in place of those named here; those that are whole can stay"
"""What mends a model that lies in a folder."""


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
    proof = Proof(reader, reader.sizes, allow_pickle)
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
            hint=mend,
            findings=proof.findings,
        )
    return _facts(proof, config, maps, code, template)


def _facts(
    proof: Proof, config: dict[str, Any], loaded: list[str], code: tuple[str, ...], template: bool
) -> ModelFacts:
    shape = configs.read_shape(config)
    tensors = [tensor for path in loaded for tensor in proof.headers[path].tensors]
    by_dtype: Counter[str] = Counter()
    draft = 0
    for tensor in tensors:
        by_dtype[tensor.dtype] += tensor.size
        match = LAYER.match(tensor.name)
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


def _license(proof: Proof) -> str | None:
    if "README.md" not in proof.sizes:
        return None
    text = proof.reader.read("README.md", 0, min(proof.sizes["README.md"], 1 << 16))
    return configs.card_license(text.decode("utf-8", "replace"))
