"""What the server loads is carried; the same weights in another format are named and left out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from bundler.collect.models.listing import ListedFile, Listing, select
from bundler.errors import InputError
from bundler.model import FileSelection

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMON = ("config.json", "tokenizer.json")
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def listed(*paths: str, index: Sequence[str] = (), **choice: Any) -> Listing:
    """Return the chosen files of a model; each is one byte long.

    :param index: the files that its index names.
    """
    files = Listing(tuple(ListedFile(path, 1) for path in paths))
    selection = FileSelection(include=choice.pop("include", ("*",)))
    data = json.dumps({"weight_map": dict(enumerate(index))}).encode()
    return select(files, selection, where="here", read=lambda _: data, **choice)


def split(
    *paths: str, include: tuple[str, ...] = ("*",), all_files: bool = False
) -> tuple[set[str], set[str]]:
    chosen = listed(*COMMON, *paths, include=include, all_files=all_files)
    return {file.path for file in chosen.files} - set(COMMON), {file.path for file in chosen.left_out}


@pytest.mark.parametrize(
    "spare",
    [
        ("consolidated.safetensors",),
        ("consolidated-00001-of-00002.safetensors", "consolidated.safetensors.index.json"),
        ("original/consolidated.00.pth", "original/params.json", "original/tokenizer.model"),
        ("metal/model.bin", "original/model.safetensors"),
        ("model.fp16.safetensors", "model.safetensors.index.fp16.json"),
        ("model.fp16-00001-of-00002.safetensors", "model.bf16.safetensors"),
        ("rust_model.ot", "onnx/model.onnx_data"),
        ("pytorch_model-00001-of-00002.bin", "training_args.bin"),
        ("adapter_config.json", "adapter_model.safetensors"),
        ("lora/adapter_config.json", "lora/adapter_model.safetensors"),
        ("sub/model-00001-of-00002.safetensors", "sub/model.safetensors.index.json"),
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


TWO = ("model-00001-of-00001.safetensors", "model-00001-of-00002.safetensors", SHARDS[1])
INDEX = "model.safetensors.index.json"


def test_of_two_sets_of_shards_that_of_the_index_is_loaded() -> None:
    chosen = listed(*COMMON, INDEX, *TWO, index=SHARDS)
    assert chosen.loaded == SHARDS
    assert [file.path for file in chosen.left_out] == [TWO[0]]
    everything = listed(*COMMON, INDEX, *TWO, index=SHARDS, all_files=True)
    assert everything.loaded == SHARDS
    assert not everything.left_out


def test_without_an_index_all_shards_are_loaded() -> None:
    assert listed(*COMMON, *TWO).loaded == TWO


def test_an_index_of_which_files_are_missing_leaves_nothing_out() -> None:
    """The proof then has the other shards to tell of."""
    assert not listed(*COMMON, INDEX, *TWO, index=("gone.safetensors", *SHARDS)).left_out


@pytest.mark.parametrize("data", [b"", b"{", b'{"weight_map": 1}'])
def test_an_index_that_is_broken_leaves_nothing_out(data: bytes) -> None:
    files = Listing(tuple(ListedFile(path, 1) for path in (*COMMON, INDEX, *TWO)))
    chosen = select(files, FileSelection(), where="here", read=lambda _: data)
    assert chosen.loaded == TWO
    assert not chosen.left_out


def test_layers_for_speculative_decoding_stay_though_the_index_forgets_them() -> None:
    chosen = listed(*COMMON, INDEX, *SHARDS, "mtp.safetensors", "other.safetensors", index=SHARDS)
    assert chosen.loaded == (*SHARDS, "mtp.safetensors")
    assert [file.path for file in chosen.left_out] == ["other.safetensors"]


@pytest.mark.parametrize("reader", ["modeling_x.py", "modules.json"])
def test_weights_in_folders_stay_where_something_may_read_them(reader: str) -> None:
    assert split(*SHARDS, reader, "audio/model.safetensors")[1] == set()


@pytest.mark.parametrize(
    ("paths", "loaded"),
    [
        (("pytorch_model.bin", "training_args.bin", "original/consolidated.00.pth"), ("pytorch_model.bin",)),
        (("adapter_config.json", "adapter_model.safetensors", "pytorch_model.bin"), ("pytorch_model.bin",)),
        (("model.safetensors", "pytorch_model.bin"), ("model.safetensors",)),
        (("pytorch_model.bin", "weights.pt"), ("pytorch_model.bin",)),
    ],
)
def test_of_pickles_the_servers_are_counted(paths: tuple[str, ...], loaded: tuple[str, ...]) -> None:
    assert listed(*COMMON, *paths, allow_pickle=True).loaded == loaded


def test_a_pickle_stays_where_the_only_safetensors_are_an_adapters() -> None:
    with pytest.raises(InputError, match=r"the weights are pickles \(pytorch_model.bin\)"):
        listed(*COMMON, "adapter_config.json", "adapter_model.safetensors", "pytorch_model.bin")


def test_what_is_left_out_is_named_by_sets_and_folders() -> None:
    text = listed(
        *COMMON,
        *SHARDS,
        *(f"consolidated-{n:05}-of-00030.safetensors" for n in range(1, 31)),
        "original/a",
        "original/b",
    ).left_out_text
    assert "consolidated-*-of-00030.safetensors (30 files), original/ (2 files) (32 B; --all-files" in text
