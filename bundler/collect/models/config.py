"""What ``config.json`` and the files beside it say of a model."""

from __future__ import annotations

import re
from typing import Any

from bundler.model import ModelFacts

_DTYPE_BYTES = {"bfloat16": 2, "float16": 2, "half": 2, "float32": 4, "float": 4}
HEAD = "lm_head.weight"
"""What the head's tensor is called, at its end."""
TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "tiktoken.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
)
TEMPLATES = ("chat_template.jinja", "chat_template.json")
AUTO_MAP_FILES = (
    "config.json",
    "tokenizer_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "generation_config.json",
)
"""The files whose ``auto_map`` names Python code."""


def read_shape(config: dict[str, Any]) -> ModelFacts:
    """Return the facts that a config tells; the language model's, where the config nests it."""
    text = _text_config(config)
    heads = _count(text, "num_attention_heads", "n_head")
    names = config.get("architectures")
    latent = _count(text, "kv_lora_rank") is not None
    return ModelFacts(
        architecture=names[0] if isinstance(names, list) and names and isinstance(names[0], str) else None,
        quantization=_quantization(config, text),
        layers=_count(text, "num_hidden_layers", "n_layer"),
        attention_heads=heads,
        kv_heads=1 if latent else _count(text, "num_key_value_heads") or heads,
        experts=_count(text, "n_routed_experts", "num_experts", "num_local_experts"),
        kv_bytes_per_token=_kv_bytes(config, text),
        context_length=_count(text, "max_position_embeddings", "n_positions"),
        vision=isinstance(config.get("vision_config"), dict),
    )


def _text_config(config: dict[str, Any]) -> dict[str, Any]:
    for key in ("text_config", "llm_config", "language_config"):
        nested = config.get(key)
        if isinstance(nested, dict) and "num_hidden_layers" in nested:
            return nested
    return config


def _count(config: dict[str, Any], *keys: str) -> int | None:
    for key in keys:
        value = config.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def _quantization(config: dict[str, Any], text: dict[str, Any]) -> str | None:
    for one in (config, text):
        for key in ("quantization_config", "compression_config"):
            nested = one.get(key)
            if isinstance(nested, dict) and isinstance(nested.get("quant_method"), str):
                return str(nested["quant_method"])
    return None


def _kv_bytes(config: dict[str, Any], text: dict[str, Any]) -> int | None:
    """Return the KV cache's bytes for one token: keys and values of every layer, in the model's dtype."""
    layers = _count(text, "num_hidden_layers", "n_layer")
    heads = _count(text, "num_attention_heads", "n_head")
    if layers is None or heads is None:
        return None
    named = text.get("torch_dtype") or text.get("dtype") or config.get("torch_dtype") or config.get("dtype")
    width = _DTYPE_BYTES.get(str(named), 2)
    latent = _count(text, "kv_lora_rank")
    if latent is not None:  # one compressed vector a layer serves all heads
        return layers * (latent + (_count(text, "qk_rope_head_dim") or 0)) * width
    hidden = _count(text, "hidden_size", "n_embd")
    head_dim = _count(text, "head_dim") or (hidden // heads if hidden else None)
    if head_dim is None:
        return None
    return layers * 2 * (_count(text, "num_key_value_heads") or heads) * head_dim * width


def remote_code(configs: dict[str, dict[str, Any]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the Python files that ``auto_map`` names, and references to other repositories.

    :param configs: the parsed :data:`AUTO_MAP_FILES` that are there, by name.
    """
    files: set[str] = set()
    elsewhere: set[str] = set()
    for name in AUTO_MAP_FILES:
        mapping = configs.get(name, {}).get("auto_map")
        values = mapping.values() if isinstance(mapping, dict) else [mapping]
        for value in values:
            for word in value if isinstance(value, list) else [value]:
                if not isinstance(word, str) or "." not in word:
                    continue
                if "--" in word:
                    elsewhere.add(word)
                else:
                    files.add(word.rsplit(".", 1)[0].replace(".", "/") + ".py")
    return tuple(sorted(files)), tuple(sorted(elsewhere))


def full_layers(config: dict[str, Any]) -> int | None:
    """Return how many layers have tensors for certain; ``None`` where the config doesn't tell.

    Where ``block_configs`` describes each layer (Nemotron), some do nothing and have none.
    """
    text = _text_config(config)
    return None if "block_configs" in text else _count(text, "num_hidden_layers", "n_layer")


def is_tied(config: dict[str, Any]) -> bool:
    """Return whether the head is the embedding's matrix once more, which then needs no tensor of its own."""
    text = config.get("text_config")
    inner = text if isinstance(text, dict) else {}
    said = config.get("tie_word_embeddings", inner.get("tie_word_embeddings"))
    # Gemma's config classes tie by default, and their config.json says nothing.
    return bool(said) if said is not None else str(config.get("model_type")).startswith("gemma")


def card_license(card: str) -> str | None:
    """Return the licence id of a model card's front matter."""
    front = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", card, re.DOTALL)
    if front is None:
        return None
    fields = dict(
        re.findall(r"^(license|license_name):\s*[\"']?([^\"'\n#]+?)[\"']?\s*$", front[1], re.MULTILINE)
    )
    name = fields.get("license")
    return fields.get("license_name", name) if name == "other" else name
