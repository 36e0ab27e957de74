"""Which of a model's files SGLang loads as its weights, by their names and its index alone.

Its loader (``sglang/srt/model_loader/loader.py`` and ``weight_utils.py``) takes ``*.safetensors`` of the
model's folder itself, never of a folder below; where :data:`INDEX` is there, only those that it names, and
:data:`DRAFT`. Where there are none it takes ``*.bin``, and where there are none of these ``*.pt``.
"""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

INDEX = "model.safetensors.index.json"
DRAFT = "mtp.safetensors"
"""Layers for speculative decoding: SGLang reads GLM-4's from here also where the index doesn't name it."""
_COUNTED = re.compile(r"\A(.*?[-.])\d+((?:-of-\d+)?\.[a-z]+)\Z")
SAFETENSORS = (".safetensors", ".safetensors.index.json")
"""Endings of shards and their index."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
"""Endings of checkpoints that run code when they are loaded."""
TRAINING = ("training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scaler.pt")
"""Pickles of a training, which SGLang passes over."""
SPARE = (
    "consolidated*.safetensors",
    "consolidated*.safetensors.index.json",
    "consolidated*.pth",
    "pytorch_model*.bin",
    "*.fp16.safetensors",
    "*.bf16.safetensors",
    "*.fp32.safetensors",
    "*.fp16-*-of-*.safetensors",
    "*.bf16-*-of-*.safetensors",
    "*.fp32-*-of-*.safetensors",
    "*.safetensors.index.*.json",
    "original/*",
    "metal/*",
    "onnx/*",
    "openvino/*",
    "coreml/*",
    "*.gguf",
    "*.onnx",
    "*.onnx_data",
    "*.h5",
    "*.msgpack",
    "*.ot",
    "*.tflite",
)
"""The same weights in formats and types that are left out where the model's folder itself has safetensors."""
ADAPTER = ("adapter_config.json", "adapter_model*.safetensors", "adapter_model*.bin")
"""An adapter's files (PEFT): beside a base model SGLang would take its tensors for the model's own."""
READERS_OF_FOLDERS = ("*.py", "modules.json")
"""Files beside config.json that mean that weights in folders may be read: code of the model's, and
sentence-transformers' list of modules."""

NUMBERED = re.compile(r"(?P<stem>.*)-(?P<number>\d+)-of-(?P<count>\d+)\.safetensors")
"""A shard's name: ``model-00001-of-00093.safetensors``, also with other numbers of digits."""


def loaded_weights(paths: Collection[str], index: Collection[str] = ()) -> tuple[str, ...]:
    """Return the files that are loaded as the model's weights, by path.

    :param paths: all files that are carried.
    :param index: the files that :data:`INDEX` names; empty where there is none.
    """
    beside = [path for path in paths if "/" not in path]
    named = set(index) & set(paths)
    if named:
        return tuple(sorted(named | ({DRAFT} & set(beside))))
    shards = [path for path in beside if path.endswith(".safetensors") and not is_adapter(path)]
    if shards:
        return tuple(sorted([path for path in shards if not is_spare(path)] or shards))
    pickles = [path for path in beside if path not in TRAINING and not is_adapter(path)]
    for ending in PICKLES:
        if of_one := sorted(path for path in pickles if path.endswith(ending)):
            return tuple(of_one)
    return ()


def not_loaded(paths: Collection[str], index: Collection[str] = ()) -> set[str]:
    """Return the weights, and what belongs to them, that aren't loaded as safetensors files are.

    Where none are loaded, or files that the index names are missing, nothing is.

    :param paths: as for :func:`loaded_weights`.
    :param index: as for :func:`loaded_weights`.
    """
    loaded = set(loaded_weights(paths, index))
    if not any("/" not in path and path.endswith(".safetensors") and not is_spare(path) for path in loaded):
        return set()
    found = {path for path in paths if is_spare(path)}
    if "config.json" in paths:
        found |= {path for path in paths if is_adapter(path)}
    if index and set(index) <= set(paths):
        found |= {path for path in paths if "/" not in path and path.endswith(".safetensors")}
    if not any(_matches(path, READERS_OF_FOLDERS) for path in paths if "/" not in path):
        found |= {
            path
            for path in paths
            if "/" in path and path.endswith((".safetensors", ".safetensors.index.json"))
        }
    return found - loaded


def wants_index(paths: Collection[str]) -> bool:
    """Return whether names alone don't tell which shards are loaded, and an index would."""
    shards = [
        path
        for path in paths
        if "/" not in path and path.endswith(".safetensors") and not is_spare(path) and not is_adapter(path)
    ]
    sets = {
        (match["stem"], match["count"]) if (match := NUMBERED.fullmatch(path)) else path for path in shards
    }
    return INDEX in paths and len(sets) > 1


def is_spare(path: str) -> bool:
    """Return whether a file belongs to the same weights once more, by its name."""
    return _matches(path, SPARE)


def is_adapter(path: str) -> bool:
    """Return whether a file is an adapter's."""
    return _matches(path.rpartition("/")[2], ADAPTER)


def grouped(paths: Iterable[str]) -> list[str]:
    """Return paths for people: numbered files of one name, and a folder, as one."""
    groups: dict[str, list[str]] = {}
    for path in paths:
        folder, slash, _ = path.partition("/")
        name = f"{folder}/" if slash else path
        name = _COUNTED.sub(r"\1*\2", name)
        groups.setdefault(name, []).append(path)
    return [f"{name} ({len(of)} files)" if len(of) > 1 else of[0] for name, of in groups.items()]


def _matches(path: str, patterns: Collection[str]) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)
