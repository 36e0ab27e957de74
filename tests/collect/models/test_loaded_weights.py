"""A model's weights are counted as the server loads them, whatever else lies beside."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from bundler.collect.models.folder import FolderSource
from bundler.collect.models.source import carry, estimate
from bundler.errors import DamagedError
from bundler.model import FileSelection, ModelFacts, ModelSpec
from tests.support.shards import write_index, write_shard

if TYPE_CHECKING:
    from pathlib import Path

EMBEDDING, HEAD = {"model.embed_tokens.weight": 50}, {"lm_head.weight": 50}
LAYERS = {f"model.layers.{number}.mlp.weight": 100 for number in range(2)}
SHARDS = {
    "model-00001-of-00002.safetensors": {**EMBEDDING, "model.layers.0.mlp.weight": 100},
    "model-00002-of-00002.safetensors": {"model.layers.1.mlp.weight": 100, **HEAD},
}
BYTES = 600
"""Of these shards' tensors."""
INDEX = "model.safetensors.index.json"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a folder with what a model has beside its weights."""
    folder = tmp_path / "m"
    folder.mkdir()
    configure(folder)
    (folder / "vocab.txt").write_text("a\nb\n")
    return folder


def configure(folder: Path, **more: Any) -> None:
    config = {"architectures": ["Glm4MoeForCausalLM"], "num_hidden_layers": 2, **more}
    (folder / "config.json").write_text(json.dumps(config))


def put(folder: Path, shards: dict[str, dict[str, int]], *, index: bool = False) -> None:
    for name, tensors in shards.items():
        write_shard(folder / name, tensors)
    if index:
        write_index(folder / INDEX, shards)


def facts(folder: Path, *, all_files: bool = False) -> ModelFacts:
    source = FolderSource(ModelSpec(name="m"), folder, all_files=all_files)
    return carry(source, folder.parent / "weights").entry.facts


def findings(folder: Path) -> str:
    with pytest.raises(DamagedError) as caught:
        facts(folder)
    return "\n".join(caught.value.findings)


@pytest.mark.parametrize("all_files", [False, True])
@pytest.mark.parametrize(
    "spare",
    [
        {"model-00001-of-00001.safetensors": {**EMBEDDING, **LAYERS, **HEAD}},
        {"consolidated.safetensors": {"tok_embeddings.weight": 300}},
        {"model.fp16.safetensors": {**EMBEDDING, **LAYERS, **HEAD}},
        {"adapter_model.safetensors": {"base_model.model.layers.0.lora_A.weight": 8}},
        {"original/model.safetensors": {"block.0.weight": 300}},
        {"copy/model-00001-of-00001.safetensors": {**EMBEDDING, **LAYERS, **HEAD}},
    ],
)
def test_what_lies_beside_the_shards_is_not_counted(
    model: Path, spare: dict[str, dict[str, int]], all_files: bool
) -> None:
    put(model, SHARDS, index=True)
    put(model, spare)
    source = FolderSource(ModelSpec(name="m"), model, all_files=all_files)
    assert [file.path for file in source.listing.left_out] == ([] if all_files else list(spare))
    counted = facts(model, all_files=all_files)
    assert (counted.weight_bytes, counted.shards) == (BYTES, 2)
    rough = estimate(source)
    assert rough.shards == 2
    assert rough.weight_bytes == sum((model / name).stat().st_size for name in SHARDS)


def test_without_an_index_whole_numbers_do(model: Path) -> None:
    """The server loads every shard of the folder; it needs no index."""
    put(model, SHARDS)
    assert facts(model).weight_bytes == BYTES


@pytest.mark.parametrize("name", ["model-2-of-2.safetensors", "model-00002-of-00002.safetensors"])
def test_without_an_index_the_numbers_must_be_whole(model: Path, name: str) -> None:
    other = name.replace("2-of", "1-of")
    put(model, {other: {**EMBEDDING, **LAYERS}})
    assert f"{name} is missing" in findings(model)


def test_a_tensor_of_two_files_is_counted_once(model: Path) -> None:
    put(model, {"a.safetensors": {**EMBEDDING, **LAYERS}, "b.safetensors": {**HEAD, **LAYERS}})
    assert facts(model).weight_bytes == BYTES


@pytest.mark.parametrize("nested", [False, True])
def test_a_tied_head_takes_no_memory_of_its_own(model: Path, nested: bool) -> None:
    tied = {"tie_word_embeddings": True}
    configure(model, **({"text_config": tied} if nested else tied))
    put(model, SHARDS, index=True)
    assert facts(model).weight_bytes == BYTES - 100


def test_layers_beside_the_index_are_those_of_speculative_decoding(model: Path) -> None:
    put(model, SHARDS, index=True)
    put(model, {"mtp.safetensors": {"model.layers.2.eh_proj.weight": 10, "mtp.norm": 5}})
    counted = facts(model)
    assert (counted.weight_bytes, counted.draft_weight_bytes) == (BYTES + 30, 30)


def test_an_index_of_another_version_is_named_as_such(model: Path) -> None:
    put(model, SHARDS)
    write_index(
        model / INDEX,
        {f"model-0000{n}-of-00003.safetensors": SHARDS[name] for n, name in enumerate(SHARDS, 1)},
    )
    found = findings(model)
    assert "model-00001-of-00003.safetensors is missing: the index puts 2 tensors there" in found
    assert (
        "model.safetensors.index.json doesn't name model-*-of-00002.safetensors (2 files): "
        "index and shards are of two versions"
    ) in found
    with pytest.raises(DamagedError, match="two versions") as caught:
        facts(model)
    assert "files.exclude = ['model.safetensors.index.json']" in str(caught.value.hint)
    spec = ModelSpec(name="m", files=FileSelection(exclude=(INDEX,)))
    assert carry(FolderSource(spec, model), model).entry.facts.weight_bytes == BYTES


def test_where_the_index_alone_is_off_the_hint_says_what_to_do(model: Path) -> None:
    put(model, SHARDS)
    last = "model-00002-of-00002.safetensors"
    write_index(model / INDEX, {**SHARDS, last: {**SHARDS[last], "mtp.fc.weight": 1}})
    with pytest.raises(DamagedError, match=r"lacks mtp\.fc\.weight") as caught:
        facts(model)
    assert "files.exclude" in str(caught.value.hint)
    (model / "vocab.txt").unlink()
    with pytest.raises(DamagedError, match="there is no tokenizer") as caught:
        facts(model)
    assert "files.exclude" not in str(caught.value.hint)


def test_an_index_of_nothing_that_is_here_is_passed_over(model: Path) -> None:
    """The server reads one index, of one name."""
    put(model, SHARDS, index=True)
    write_index(model / "old.safetensors.index.json", {"old-00001-of-00001.safetensors": {"x": 1}})
    assert facts(model).weight_bytes == BYTES
    write_index(model / "old.safetensors.index.json", {next(iter(SHARDS)): {"x": 1}})
    assert "lacks x, which the index puts there" in findings(model)


def test_layers_that_do_nothing_have_no_tensors(model: Path) -> None:
    configure(model, num_hidden_layers=3)
    put(model, SHARDS, index=True)
    assert "layer 2 has no tensors" in findings(model)
    configure(model, num_hidden_layers=3, block_configs=[{}, {}, {"attention": {"no_op": True}}])
    assert facts(model).weight_bytes == BYTES


def test_a_missing_shard_alone_is_no_other_version(model: Path) -> None:
    put(model, SHARDS, index=True)
    (model / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(DamagedError) as caught:
        facts(model)
    assert "two versions" not in str(caught.value)
    assert "files.exclude" not in str(caught.value.hint)


@pytest.mark.parametrize("index", [False, True])
def test_weights_in_a_folder_are_not_loaded(model: Path, index: bool) -> None:
    put(model, {f"shards/{name}": tensors for name, tensors in SHARDS.items()}, index=index)
    assert "shards/ (2 files): SGLang loads weights that lie beside config.json" in findings(model)


def test_a_layer_that_only_a_spare_set_has_is_missing(model: Path) -> None:
    put(model, {"model.safetensors": {**EMBEDDING, "model.layers.0.mlp.weight": 100}}, index=True)
    put(model, {"old.safetensors": LAYERS})
    with pytest.raises(DamagedError) as caught:
        facts(model, all_files=True)
    assert "layer 1 has no tensors; config.json counts 2" in caught.value.findings
