"""A model's folder is proved whole, and each thing that it lacks is named."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from bundler.collect.models.folder import FolderSource, scan
from bundler.collect.models.source import carry
from bundler.collect.models.specs import find_spec, load_spec, manifest_folders, open_model
from bundler.errors import DamagedError, InputError
from bundler.model import FileSelection, ModelSpec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bundler.collect.models.source import CarriedModel

FIRST = "model-00001-of-00004.safetensors"
SECOND = "model-00002-of-00004.safetensors"
INDEX = "model.safetensors.index.json"


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """Return a copy of the tiny model that the test may damage."""
    return shutil.copytree(tiny_model, tmp_path / "tiny-glm4-moe")


def proved(model: Path, *, spec: ModelSpec | None = None, allow_pickle: bool = False) -> CarriedModel:
    source = FolderSource(spec or ModelSpec(name="m"), model, allow_pickle)
    return carry(source, model.parent / "weights")


def findings(model: Path, **options: Any) -> str:
    with pytest.raises(DamagedError) as caught:
        proved(model, **options)
    return "\n".join(caught.value.findings)


def refusal(model: Path) -> str:
    """Return why a folder isn't taken at all."""
    with pytest.raises(InputError) as caught:
        proved(model)
    return str(caught.value)


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_a_whole_model_tells_its_facts(model: Path) -> None:
    facts = proved(model).entry.facts
    assert facts.architecture == "Glm4MoeForCausalLM"
    assert (facts.dtype, facts.shards, facts.layers, facts.experts) == ("BF16", 4, 2, 24)
    assert facts.weight_bytes == pytest.approx(16.6e6, rel=0.01)
    assert facts.chat_template
    assert facts.license == "mit"
    assert facts.kv_bytes_per_token == 2 * 2 * 8 * 64 * 2


def test_a_truncated_shard_is_named(model: Path) -> None:
    os.truncate(model / SECOND, (model / SECOND).stat().st_size - 1)
    assert f"{SECOND}: truncated" in findings(model)


def test_a_missing_shard_is_named_with_its_tensors(model: Path) -> None:
    (model / SECOND).unlink()
    assert f"{SECOND} is missing: the index puts" in findings(model)


def test_swapped_shards_are_seen_in_both_directions(model: Path) -> None:
    first, second = model / FIRST, model / SECOND
    first.rename(model / "aside")
    second.rename(first)
    (model / "aside").rename(second)
    found = findings(model)
    assert f"{FIRST} lacks model.embed_tokens.weight, which the index puts there" in found
    assert f"which the index puts into {SECOND}" in found
    assert f"{FIRST} holds " in found


def test_a_tensor_that_the_index_forgets_is_named(model: Path) -> None:
    edit(model / INDEX, lambda index: index["weight_map"].pop("lm_head.weight"))
    assert "holds lm_head.weight, which the index doesn't know" in findings(model)


def test_without_an_index_the_numbers_tell(model: Path) -> None:
    (model / INDEX).unlink()
    (model / SECOND).unlink()
    found = findings(model)
    assert f"{SECOND} is missing" in found
    assert "model.safetensors.index.json is missing" in found


def test_a_layer_without_tensors_is_named(model: Path) -> None:
    edit(model / "config.json", lambda config: config.update(num_hidden_layers=3))
    assert "layer 2 has no tensors; config.json counts 3" in findings(model)


@pytest.mark.parametrize(
    ("name", "finding"),
    [
        ("config.json", "config.json is missing"),
        ("tokenizer.json", "there is no tokenizer"),
    ],
)
def test_a_missing_small_file_is_named(name: str, finding: str, model: Path) -> None:
    (model / name).unlink()
    assert finding in findings(model)


def test_a_missing_template_is_named_where_the_model_chats(model: Path) -> None:
    (model / "chat_template.jinja").unlink()
    assert not proved(model).entry.facts.chat_template
    glm = find_spec("GLM-4.7", manifest_folders()).spec
    assert "there is no chat template" in findings(model, spec=glm)
    edit(model / "tokenizer_config.json", lambda config: config.update(chat_template="{{ messages }}"))
    assert proved(model, spec=glm).entry.facts.chat_template


def test_remote_code_must_be_there(model: Path) -> None:
    edit(model / "config.json", lambda config: config.update(auto_map={"AutoConfig": "configuration_glm.C"}))
    assert "configuration_glm.py is missing: auto_map names it" in findings(model)
    (model / "configuration_glm.py").write_text("class C: ...\n")
    assert proved(model).entry.facts.remote_code == ("configuration_glm.py",)


@pytest.mark.parametrize("text", ["", "[]", "{", "{}", '{"architectures": 1}', "\udcff"])
def test_a_broken_config_is_named(text: str, model: Path) -> None:
    (model / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert "config.json" in findings(model)


def test_everything_is_named_at_once(model: Path) -> None:
    (model / SECOND).unlink()
    (model / "tokenizer.json").unlink()
    os.truncate(model / FIRST, 100)
    found = findings(model)
    assert all(word in found for word in (FIRST, SECOND, "tokenizer"))


def test_many_findings_of_a_kind_are_counted(model: Path) -> None:
    edit(model / INDEX, lambda index: index["weight_map"].clear())
    (model / INDEX).write_text(json.dumps({"weight_map": {f"t{n}": f"s{n}.safetensors" for n in range(50)}}))
    assert "… and 38 more missing shards" in findings(model)


def test_a_pickle_checkpoint_is_refused_unless_allowed(model: Path) -> None:
    for path in [*model.glob("*.safetensors"), model / INDEX]:
        path.unlink()
    (model / "pytorch_model.bin").write_bytes(b"\x80\x04N.")
    assert "the weights are pickles (pytorch_model.bin)" in refusal(model)
    assert proved(model, allow_pickle=True).entry.facts.weight_bytes == 4


def test_a_pickle_beside_safetensors_is_left_out(model: Path) -> None:
    (model / "training_args.bin").write_bytes(b"\x80\x04N.")
    source = FolderSource(ModelSpec(name="m"), model)
    assert [file.path for file in source.listing.left_out] == ["training_args.bin"]
    assert not any(member.path.endswith(".bin") for member in carry(source, model).members)


def test_no_weights_at_all_is_said(model: Path) -> None:
    for path in [*model.glob("*.safetensors"), model / INDEX]:
        path.unlink()
    assert "there are no weights" in findings(model)


def test_links_inside_are_followed_once_and_none_out(model: Path) -> None:
    (model / "blobs").mkdir()
    (model / FIRST).rename(model / "blobs/data")
    (model / FIRST).symlink_to("blobs/data")
    carried = proved(model, spec=ModelSpec(name="m", files=FileSelection(exclude=("blobs/*",))))
    assert [member.kind for member in carried.members if member.path.endswith(FIRST)] == ["file"]
    outside = model.parent / "outside"
    (model / "blobs/data").rename(outside)
    (model / FIRST).unlink()
    (model / FIRST).symlink_to("../outside")
    (model / "nowhere.json").symlink_to("gone")
    (model / "round").symlink_to(".")
    os.mkfifo(model / "pipe")
    found = findings(model)
    assert f"{FIRST}: a link out of the folder, to ../outside" in found
    assert "nowhere.json: a link that leads nowhere" in found
    assert "round: a link to a folder that it lies in" in found
    assert "pipe: neither a file nor a folder" in found


def test_what_hubs_and_tools_leave_beside_is_not_carried(model: Path) -> None:
    for name in (".git/config", ".cache/huggingface/x.lock", "._____temp/part", ".gitattributes", ".msc"):
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text("x")
    assert not [member.path for member in proved(model).members if "/." in member.path]


def test_the_manifest_chooses_files(model: Path) -> None:
    spec = ModelSpec(name="m", files=FileSelection(exclude=("README.md", "LICENSE")))
    carried = proved(model, spec=spec)
    assert carried.entry.license_files == ()
    with pytest.raises(InputError, match="no file that its manifest wants"):
        proved(model, spec=ModelSpec(name="m", files=FileSelection(include=("*.gguf",))))


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_text('name = "m"\nsource.folder = "gone"\n')
    assert load_spec(path).source.folder == "gone"
    with pytest.raises(InputError, match="no such model folder"):
        assert open_model(str(path), workspace=tmp_path).listing


def test_a_folder_cannot_be_streamed(model: Path) -> None:
    with pytest.raises(InputError, match="nothing to stream"):
        carry(FolderSource(ModelSpec(name="m"), model), model, stream=True)


def test_a_tied_head_needs_no_tensor(model: Path) -> None:
    def forget(index: dict[str, Any]) -> None:
        index["weight_map"]["model.lm_head.weight"] = FIRST

    edit(model / INDEX, forget)
    assert f"{FIRST} lacks model.lm_head.weight" in findings(model)
    edit(model / "config.json", lambda config: config.update(tie_word_embeddings=True))
    assert proved(model).entry.facts.shards == 4


def test_numbers_of_six_digits_are_read(model: Path) -> None:
    for path in [*model.glob("*.safetensors"), model / INDEX]:
        path.unlink()
    (model / "model-00001-of-000002.safetensors").write_bytes(b"")
    assert "model-00002-of-000002.safetensors is missing" in findings(model)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("adapter_config.json", "this is an adapter"),
        ("model_index.json", "this is a diffusers pipeline"),
        ("params.json", "this is a model in Mistral's own format"),
        ("x.gguf", "the weights are GGUF (x.gguf)"),
    ],
)
def test_what_is_no_such_model_is_called_what_it_is(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / name).write_text("{}")
    assert said in refusal(tmp_path / "m")


def test_a_snapshot_copied_without_its_blobs_says_how_to_copy_it(tmp_path: Path) -> None:
    """Here no link has anything behind it, so copying this folder once more wouldn't help."""
    (tmp_path / "config.json").symlink_to("../../blobs/0123")
    with pytest.raises(DamagedError) as refused:
        scan(tmp_path, FileSelection())
    assert "copy the folder again from where it is whole, `cp -rL`" in str(refused.value.hint)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("", "configuration_glm.py is empty"),
        ("<!DOCTYPE html><html>sign in</html>", "configuration_glm.py is a web page"),
        (
            "class C:\n    def half(self",
            "configuration_glm.py is no Python code: '(' was never closed, line 2",
        ),
        ("from .shapes import Shape\n", "shapes.py is missing: configuration_glm.py imports it"),
        ("from . import shapes\n", "shapes.py is missing: configuration_glm.py imports it"),
        ("try:\n    from .fast import x\nexcept ImportError:\n    x = None\n", None),
        ("import torch\nfrom transformers import PretrainedConfig\n", None),
    ],
)
def test_code_that_a_config_names_is_parsed(model: Path, code: str, said: str | None) -> None:
    """And what it imports of the model's own; packages are the environment's."""
    edit(model / "config.json", lambda config: config.update(auto_map={"AutoConfig": "configuration_glm.C"}))
    (model / "configuration_glm.py").write_text(code)
    if said is None:
        proved(model)
    else:
        assert said in findings(model)


def test_a_package_beside_is_a_module_too(model: Path) -> None:
    edit(model / "config.json", lambda config: config.update(auto_map={"AutoConfig": "configuration_glm.C"}))
    (model / "configuration_glm.py").write_text("from .shapes import Shape\n")
    assert "shapes.py is missing" in findings(model)
    (model / "shapes").mkdir()
    (model / "shapes/__init__.py").write_text("Shape = tuple\n")
    proved(model)


def test_modules_that_import_each_other_are_read_once(model: Path) -> None:
    edit(model / "config.json", lambda config: config.update(auto_map={"AutoConfig": "configuration_glm.C"}))
    (model / "configuration_glm.py").write_text("from .shapes import Shape\n")
    (model / "shapes.py").write_text("from .configuration_glm import C\nfrom .deep import x\n")
    assert "deep.py is missing: shapes.py imports it" in findings(model)
