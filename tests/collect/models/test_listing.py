"""What the server loads is carried; the same weights in another format are named and left out."""

from __future__ import annotations

import pytest

from bundler.collect.models.listing import ListedFile, Listing, select
from bundler.model import FileSelection

COMMON = ("config.json", "tokenizer.json")
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def split(
    *paths: str, include: tuple[str, ...] = ("*",), all_files: bool = False
) -> tuple[set[str], set[str]]:
    files = Listing(tuple(ListedFile(path, 1) for path in (*COMMON, *paths)))
    chosen = select(files, FileSelection(include=include), where="here", all_files=all_files)
    return {file.path for file in chosen.files} - set(COMMON), {file.path for file in chosen.left_out}


@pytest.mark.parametrize(
    "spare",
    [
        ("consolidated.safetensors",),
        ("consolidated-00001-of-00002.safetensors", "consolidated.safetensors.index.json"),
        ("original/consolidated.00.pth", "original/params.json", "original/tokenizer.model"),
        ("metal/model.bin", "original/model.safetensors"),
        ("model.fp16.safetensors", "model.safetensors.index.fp16.json"),
        ("onnx/model.onnx", "tf_model.h5", "flax_model.msgpack", "model-Q4_K_M.gguf"),
    ],
)
def test_another_format_of_the_weights_is_left_out(spare: tuple[str, ...]) -> None:
    assert split(*SHARDS, *spare) == (set(SHARDS), set(spare))
    assert split(*SHARDS, *spare, all_files=True) == ({*SHARDS, *spare}, set())


def test_what_is_the_only_set_stays() -> None:
    assert split("consolidated.safetensors", "params.json")[1] == set()
    assert split("unet/model.safetensors", "onnx/model.onnx")[1] == set()


def test_a_manifest_that_names_its_files_has_the_last_word() -> None:
    spare = "original/params.json"
    assert spare in split(*SHARDS, spare, include=("*.json", "*.safetensors", "original/*"))[0]
