"""What holds something else than a model that SGLang loads, told by its files' names.

So they are refused before anything is fetched, for what they are and not for what they lack.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bundler.collect.models.loaded_weights import PICKLES, grouped, loaded_weights

if TYPE_CHECKING:
    from collections.abc import Collection

_BY_FILE = {
    "adapter_config.json": (
        "this is an adapter, no model",
        "pack the base model that its adapter_config.json names",
    ),
    "model_index.json": (
        "this is a diffusers pipeline of several models, and no model that sglang.launch_server serves",
        "pack a model with a config.json of its own",
    ),
    "params.json": (
        "this is a model in Mistral's own format, without config.json",
        "take the version with config.json, where the publisher has one",
    ),
}
"""What a folder without config.json is and what to do, by a file that tells."""


def other_kind(paths: Collection[str], *, allow_pickle: bool) -> tuple[str, str] | None:
    """Return what such files are, and what to do instead; ``None`` where they may be a model.

    :param paths: all files that are wanted.
    :param allow_pickle: whether a checkpoint of pickles is one.
    """
    loaded = loaded_weights(paths)
    gguf = sorted(path for path in paths if path.endswith(".gguf"))
    if gguf and not loaded:
        names = ", ".join(grouped(gguf)[:3])
        return (
            f"the weights are GGUF ({names}), which isn't proved whole here",
            "take a version in safetensors",
        )
    if "config.json" not in paths:
        known = next((said for name, said in _BY_FILE.items() if name in paths), None)
        return known or _in_folder(paths)
    pickles = [path for path in loaded if path.endswith(PICKLES)]
    if pickles and not allow_pickle:
        names = ", ".join(grouped(pickles)[:3])
        return (
            f"the weights are pickles ({names}), which run code when they are loaded",
            "take a version in safetensors, or --allow-pickle",
        )
    return None


def _in_folder(paths: Collection[str]) -> tuple[str, str] | None:
    """Return what to say of weights that lie in folders alone."""
    weights = sorted(path for path in paths if path.endswith((".safetensors", *PICKLES)))
    if not weights or any("/" not in path for path in weights):
        return None
    names = ", ".join(grouped(weights)[:3])
    return (
        f"the weights lie in a folder ({names}) and not beside a config.json",
        "name the folder that holds both, or take the version with config.json, where the publisher has one",
    )
