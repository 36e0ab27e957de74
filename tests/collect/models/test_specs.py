"""Model manifests: found by name, read strictly, and what is shipped says what the team needs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from bundler.cli.models import models_command
from bundler.collect.models.specs import find_spec, known_specs, load_spec, manifest_folders, open_model
from bundler.errors import InputError, UnknownNameError
from bundler.host.fit import fit_text
from tests.conftest import PROJECT

if TYPE_CHECKING:
    from pathlib import Path

    from bundler.model import ModelSpec

GOOD = """
name = "some-model"
aliases = ["other"]
[source.modelscope]
id = "Team/some-model"
"""


def written(folder: Path, text: str, name: str = "some-model.toml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text)
    return path


def shipped(word: str) -> ModelSpec:
    return find_spec(word, manifest_folders()).spec


def test_a_syntax_error_names_file_and_line(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD + "\nbroken = = 1\n")
    with pytest.raises(InputError, match="line 7") as caught:
        load_spec(path)
    assert caught.value.where == path


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("[launch]\nflgs = {}", "unknown key: launch.flgs"),
        ("[[launch.variants]]\nsglangs = '1'", "unknown key: launch.variants[0].sglangs"),
        ("[requires]\ngpus = [{ count = 8 }]", "missing key: requires.gpus[0].memory-gb"),
        ("[requires]\nhost-memory-gb = '1 TB'", "requires.host-memory-gb: expected `int | null`, got `str`"),
        ("[launch.flags]\ntp = [1]", "launch.flags[...]: expected"),
        ("[launch.flags]\n'--tp-size' = 8", "launch.flags: '--tp-size' is not a flag"),
        (
            "[[launch.variants]]\ngpu-families = ['voodoo']",
            "launch.variants[0].gpu-families: 'voodoo' is none",
        ),
        ("[source.huggingface]\nid = 'no-owner'", "source.huggingface.id: 'no-owner' is not OWNER/NAME"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_its_place(text: str, finding: str, tmp_path: Path) -> None:
    path = written(tmp_path, GOOD + text)
    with pytest.raises(InputError) as caught:
        load_spec(path)
    assert caught.value.findings[0].startswith(finding)
    assert str(path) in str(caught.value)


def test_an_unknown_key_suggests_the_near_one(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_spec(written(tmp_path, GOOD + "[launch]\nflgs = {}"))
    assert caught.value.hint == "did you mean flags?"


@pytest.mark.parametrize("name", ["../evil", "", ".hidden", "a/b", "-flag"])
def test_a_name_that_is_no_folder_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be used"):
        load_spec(written(tmp_path, f"name = {json.dumps(name)}\n"))


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        load_spec(tmp_path / "none.toml")
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8"):
        load_spec(path)


def test_the_workspaces_own_manifest_comes_before_the_shipped_one(tmp_path: Path) -> None:
    written(tmp_path / "manifests", 'name = "GLM-4.7"\ndescription = "ours"\n', "mine.toml")
    assert find_spec("glm-4.7", manifest_folders(tmp_path)).spec.description == "ours"


def test_an_unknown_name_lists_what_there_is_and_what_is_near(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"did you mean GLM-4\.7") as caught:
        open_model("GLM4.7", workspace=tmp_path)
    assert "Qwen2-VL-7B-Instruct" in str(caught.value.hint)


def test_a_broken_manifest_hides_no_other(tmp_path: Path) -> None:
    written(tmp_path / "manifests", GOOD)
    written(tmp_path / "manifests", "broken = ", "broken.toml")
    folders = manifest_folders(tmp_path)
    assert find_spec("OTHER", folders).spec.name == "some-model"
    with pytest.raises(InputError, match="not TOML"):
        find_spec("broken", folders)
    _, problems = known_specs(folders)
    assert len(problems) == 1


def test_the_four_shipped_manifests_are_whole() -> None:
    known, problems = known_specs([PROJECT / "manifests"])
    assert not problems
    names = {"GLM-4.7", "GLM-4.7-FP8", "Qwen2-VL-7B-Instruct", "tiny-glm4-moe"}
    assert names <= {one.spec.name for one in known}


def test_glm_is_launched_with_exactly_the_teams_flags() -> None:
    assert shipped("GLM-4.7").launch.flags == {
        "tool-call-parser": "glm47",
        "reasoning-parser": "glm45",
        "trust-remote-code": True,
        "mem-fraction-static": 0.9,
        "host": "0.0.0.0",
        "port": 30000,
        "disable-cuda-graph-padding": True,
        "cuda-graph-max-bs": 32,
    }
    assert shipped("GLM-4.7").served_name == "glm-4.7"


def test_ids_say_whether_they_were_confirmed() -> None:
    source = shipped("glm-4.7").source
    assert source.modelscope is not None
    assert (source.modelscope.id, source.modelscope.confirmed) == ("ZhipuAI/GLM-4.7", True)
    likely = shipped("GLM-4.7-FP8").source.modelscope
    assert likely is not None
    assert not likely.confirmed


def test_the_misfit_is_said_in_the_manifest() -> None:
    spec = shipped("GLM-4.7")
    assert [fit_text(fit) for fit in spec.requires.gpus] == ["8 × 141 GB", "16 × 80 GB"]
    assert "doesn't fit 8 × 80 GB" in str(spec.requires.advice)
    assert "GLM-4.7-FP8" in str(spec.requires.advice)


def test_the_team_finds_qwen_by_its_own_word() -> None:
    assert shipped("qwen2-vl-7b").name == "Qwen2-VL-7B-Instruct"


def test_a_hub_id_takes_the_manifest_that_names_it(tmp_path: Path) -> None:
    source = open_model("hf:zai-org/GLM-4.7@v2", workspace=tmp_path)
    assert source.spec.name == "GLM-4.7"
    assert source.spec.launch.flags["tool-call-parser"] == "glm47"
    assert source.spec.source.modelscope is None
    place = source.spec.source.huggingface
    assert place is not None
    assert place.revision == "v2"


def test_a_hub_id_without_a_manifest_gets_a_plain_one(tmp_path: Path) -> None:
    source = open_model("ms:Some/Thing-7B", workspace=tmp_path)
    assert source.spec.name == "Thing-7B"
    assert source.origin == "modelscope:Some/Thing-7B"


@pytest.mark.parametrize("word", ["hf:nothing", "ms:a/b/c", "hf:a/b@", "ms:a/../b", "hf:a/b@-x"])
def test_a_bad_hub_word_is_refused(word: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not OWNER/NAME"):
        open_model(word, workspace=tmp_path)


def test_a_source_that_the_manifest_lacks_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    with pytest.raises(InputError, match="names no source 'huggingface'") as caught:
        open_model(str(path), workspace=tmp_path, source="huggingface")
    assert "modelscope" in str(caught.value.hint)


def test_a_folder_takes_the_manifest_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights/GLM-4.7").mkdir(parents=True)
    (tmp_path / "plain").mkdir()
    monkeypatch.chdir(tmp_path)
    assert open_model("weights/GLM-4.7", workspace=tmp_path).spec.served_name == "glm-4.7"
    assert open_model("plain", workspace=tmp_path).spec.name == "plain"


def test_a_manifests_folder_is_relative_to_the_manifest(tmp_path: Path) -> None:
    path = written(tmp_path / "manifests", 'name = "near"\nsource.folder = "../near"\n')
    (tmp_path / "near").mkdir()
    with pytest.raises(InputError, match="folder is empty"):
        assert open_model(str(path), workspace=tmp_path).listing


def test_the_command_lists_names_sources_and_needs() -> None:
    result = CliRunner().invoke(models_command, ["--workspace", str(PROJECT)])
    assert result.exit_code == 0
    assert "modelscope:ZhipuAI/GLM-4.7\n" in result.output
    assert "modelscope:ZhipuAI/GLM-4.7-FP8 (unconfirmed id)" in result.output
    assert "8 × 141 GB or 16 × 80 GB" in result.output
    assert "also qwen2-vl-7b" in result.output


def test_the_command_prints_json_and_names_broken_manifests(tmp_path: Path) -> None:
    written(tmp_path / "manifests", "broken = ", "broken.toml")
    result = CliRunner().invoke(models_command, ["--workspace", str(tmp_path), "--json"])
    assert isinstance(result.exception, InputError)
    assert "GLM-4.7" in {one["name"] for one in json.loads(result.stdout)["models"]}


def test_a_shipped_manifests_folder_lies_in_the_workspace(tmp_path: Path) -> None:
    (tmp_path / "weights/tiny-glm4-moe").mkdir(parents=True)
    with pytest.raises(InputError, match="folder is empty"):
        assert open_model("tiny-glm4-moe", workspace=tmp_path).listing
