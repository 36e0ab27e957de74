"""GLM-4.7's checkpoint by its shape alone: every tensor's name, type and size, and not a byte of data."""

from __future__ import annotations

import json
import struct
from math import prod
from typing import TYPE_CHECKING, Any

from bundler.collect.models.reader import Reader
from tests.support.tinymodel import Shape, Tensor, tensors

if TYPE_CHECKING:
    from collections.abc import Iterator

GLM47 = Shape(
    vocab_size=151552,
    hidden_size=5120,
    intermediate_size=12288,
    num_hidden_layers=92,
    num_attention_heads=96,
    num_key_value_heads=8,
    head_dim=128,
    n_routed_experts=160,
    n_shared_experts=1,
    num_experts_per_tok=8,
    moe_intermediate_size=1536,
    first_k_dense_replace=3,
)
CONFIG = {
    "architectures": ["Glm4MoeForCausalLM"],
    "model_type": "glm4_moe",
    **vars(GLM47),
    "num_nextn_predict_layers": 1,
    "max_position_embeddings": 202752,
    "torch_dtype": "bfloat16",
}
SHARDS = 93


def glm_tensors() -> Iterator[Tensor]:
    """Name every tensor of GLM-4.7 with its draft layer, which holds its own embedding and head."""
    yield from tensors(GLM47)
    last = GLM47.num_hidden_layers
    deeper = Shape(**{**vars(GLM47), "num_hidden_layers": last + 1})
    yield from (tensor for tensor in tensors(deeper) if tensor.name.startswith(f"model.layers.{last}."))
    hidden, words = GLM47.hidden_size, GLM47.vocab_size
    for name, shape in (
        ("embed_tokens", (words, hidden)),
        ("shared_head.head", (words, hidden)),
        ("shared_head.norm", (hidden,)),
        ("eh_proj", (hidden, 2 * hidden)),
        ("enorm", (hidden,)),
        ("hnorm", (hidden,)),
    ):
        yield Tensor(f"model.layers.{last}.{name}.weight", shape)


class ShapeReader(Reader):
    """A model of hundreds of gigabytes whose headers alone exist."""

    def __init__(self, *, fp8: bool = False) -> None:
        """Lay the tensors out in shards; in FP8 the projections take a byte, with a scale a row."""
        config: dict[str, Any] = dict(CONFIG)
        if fp8:
            config["quantization_config"] = {"quant_method": "compressed-tensors"}
        self._small: dict[str, bytes] = {
            "config.json": json.dumps(config).encode(),
            "tokenizer.json": b'{"model": {"type": "BPE", "vocab": {}, "merges": []}}',
        }
        self._heads: dict[str, bytes] = {}
        self._sizes: dict[str, int] = {}
        self.requested = 0
        self._lay_out([row for tensor in glm_tensors() for row in _rows(tensor, fp8)])
        sizes = {**self._sizes, **{name: len(data) for name, data in self._small.items()}}
        super().__init__("GLM-4.7 by its shape", sizes, self._read)

    def _lay_out(self, rows: list[tuple[str, str, tuple[int, ...], int]]) -> None:
        share = -(-len(rows) // SHARDS)
        places = {}
        for number in range(SHARDS):
            name = f"model-{number + 1:05}-of-{SHARDS:05}.safetensors"
            header, end = {}, 0
            for tensor, dtype, shape, size in rows[number * share : (number + 1) * share]:
                header[tensor] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
                places[tensor] = name
                end += size
            text = json.dumps(header).encode()
            self._heads[name] = struct.pack("<Q", len(text)) + text
            self._sizes[name] = len(self._heads[name]) + end
        self._small["model.safetensors.index.json"] = json.dumps({"weight_map": places}).encode()

    def _read(self, path: str, offset: int, length: int) -> bytes:
        """Return bytes of a small file or a header; there are no others."""
        self.requested += length
        return (self._small.get(path) or self._heads[path])[offset : offset + length]


def _rows(tensor: Tensor, fp8: bool) -> Iterator[tuple[str, str, tuple[int, ...], int]]:
    if fp8 and "_proj.weight" in tensor.name:
        yield tensor.name, "F8_E4M3", tensor.shape, prod(tensor.shape)
        yield f"{tensor.name}_scale", "BF16", (tensor.shape[0], 1), tensor.shape[0] * 2
    else:
        yield tensor.name, tensor.dtype, tensor.shape, tensor.size
