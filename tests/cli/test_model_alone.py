"""A model without an environment, packed, looked at and unpacked: what each command says."""

from __future__ import annotations

import json
import os
import re
import shutil
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from bundler.cli.pack import _disks
from bundler.store import Store
from bundler.work.pack import _scratch
from tests.cli.conftest import PROJECT
from tests.cli.test_messages import said

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Bundler

SMALL = ("--volume-size", "9MB")


def test_what_is_said_from_pack_to_verify(bundler: Bundler, tiny_model: Path, tmp_path: Path) -> None:
    done = bundler("pack", "--model", tiny_model, *SMALL, "-o", tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / tiny_model.name
    assert f"{folder}: 2 volumes, " in done.stdout
    assert f"bundler unpack {folder.name} DEST" in done.stdout

    done = bundler("inspect", folder)
    assert re.search(
        rf"^    data-00001.tar.zst to data-00002.tar.zst  13.\d MB  {folder}$", done.stdout, re.MULTILINE
    )
    assert "8.3 million parameters" in done.stdout

    done = bundler("unpack", folder, "to")
    assert done.returncode == 0, done.stderr
    assert "no environment is here" in done.stdout
    assert "next:" not in done.stdout
    done = bundler("verify", "to")
    assert done.returncode == 0, done.stderr
    assert "pruned" not in done.stdout


def test_a_lost_volume_comes_back_by_parity(bundler: Bundler, tiny_model: Path, tmp_path: Path) -> None:
    done = bundler("pack", "--model", tiny_model, *SMALL, "--parity", "1", "-o", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "parity: of each 100 files, 1 can be mended" in done.stdout
    folder = tmp_path / tiny_model.name
    assert re.search(r"^  parity: 1, \S+ MB; of each 100 files 1", bundler("inspect", folder).stdout, re.M)
    lost = folder / "data-00002.tar.zst"
    content = lost.read_bytes()
    lost.unlink()
    fix = f"bundler repair {folder}"
    said(bundler("unpack", folder, "to"), 6, f"or mend it by its parity: {fix}")
    said(bundler("verify", folder), 6, f"its parity mends data-00002.tar.zst: {fix}")
    done = bundler("repair", folder)
    assert done.returncode == 0, done.stderr
    assert "mended data-00002.tar.zst; " in done.stdout
    assert lost.read_bytes() == content
    assert bundler("verify", folder).returncode == 0


def test_volumes_are_shown_by_the_folder_they_lie_in(
    bundler: Bundler, tiny_model: Path, tmp_path: Path
) -> None:
    assert bundler("pack", "--model", tiny_model, *SMALL, "-o", tmp_path).returncode == 0
    folder = tmp_path / tiny_model.name
    second = shutil.copytree(folder, tmp_path / "second")
    (folder / "data-00002.tar.zst").unlink()
    (second / "data-00001.tar.zst").unlink()
    assert re.search(r"data-00002.tar.zst  \S+ MB  not here", bundler("inspect", folder).stdout)
    both = bundler("inspect", folder, second).stdout
    assert re.search(rf"data-00001.tar.zst  \S+ MB  {folder}$", both, re.MULTILINE)
    assert re.search(rf"data-00002.tar.zst  \S+ MB  {second}$", both, re.MULTILINE)


def test_choices_that_cannot_be_are_refused_before_the_plan(
    bundler: Bundler, tiny_model: Path, tmp_path: Path
) -> None:
    """What ends the same way hours later must not start at all."""
    model = shutil.copytree(tiny_model, tmp_path / "model")
    (tmp_path / "file").touch()
    for words, code, expected in (
        (("--volume-size", "1MB"), 2, "can't hold a frame"),
        (("-o", model / "out"), 9, "inside the model's folder"),
        (("-o", tmp_path / "file" / "out"), 9, "can't be written to"),
    ):
        done = bundler("pack", "--model", model, *words)
        said(done, code, expected)
        assert done.stdout == ""
    assert not (model / "out").exists()


def test_the_last_words_name_every_disk_that_holds_volumes(tmp_path: Path) -> None:
    folders = tuple(tmp_path / disk / "my model" for disk in ("a", "b", "c"))
    for folder in folders:
        folder.mkdir(parents=True)
    (folders[0] / "data-00001.tar.zst").touch()
    assert _disks(folders) == ["'my model'"]
    (folders[1] / "data-00002.tar.zst").touch()
    assert _disks(folders) == ["'DISK1/my model'", "'DISK2/my model'"]


@pytest.mark.parametrize(
    ("config", "expected"), [(None, "the model's folder is empty"), ("{", "config.json")]
)
def test_a_folder_without_a_model_is_said_once(
    bundler: Bundler, tmp_path: Path, config: str | None, expected: str
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    if config is not None:
        (model / "config.json").write_text(config)
    done = bundler("pack", "--model", model)
    said(done, 3 if config is None else 5, expected)
    assert done.stderr.count("config.json is cut short") == (config is not None)


def test_an_unfinished_unpack_is_not_taken_for_nothing(
    bundler: Bundler, tiny_model: Path, tmp_path: Path
) -> None:
    assert bundler("pack", "--model", tiny_model, *SMALL, "-o", tmp_path).returncode == 0
    folder = tmp_path / tiny_model.name
    (folder / "data-00002.tar.zst").unlink()
    assert bundler("unpack", "--partial", folder, "to").returncode == 7
    for command in ("inspect", "verify"):
        unfinished = bundler(command, "to")
        assert unfinished.returncode == 7 and unfinished.stderr.startswith("partial: ")
        assert "data-00002.tar.zst" in unfinished.stderr and "--partial DISK to" in unfinished.stderr
    missing = bundler("verify", folder)
    said(missing, 6, "data-00002.tar.zst is missing")
    assert missing.stdout == ""


def test_a_place_that_may_have_been_meant_for_a_bundle(
    bundler: Bundler, tiny_model: Path, tmp_path: Path
) -> None:
    said(bundler("unpack", "typo"), 3, "no bundle here", "typo is no bundle either")
    disk = tmp_path / "disk"
    assert bundler("pack", "--model", tiny_model, "-o", disk).returncode == 0
    shutil.copytree(disk / tiny_model.name, disk / "another")
    said(bundler("unpack", disk), 3, "several bundles are here: another, ")


def test_the_launch_command_of_a_workspace_is_right_where_one_is(bundler: Bundler, tmp_path: Path) -> None:
    """`serve --dry-run` inside a workspace, and from a folder beside it."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    for name in ("pixi.toml", "pixi.lock"):
        shutil.copy(PROJECT / name, workspace)
    words = ("serve", "--dry-run", "--model", "GLM-4.7", "--env", "cu128")
    inside = bundler(*words, cwd=workspace).stdout
    assert "  pixi run --frozen --environment cu128 python -m sglang.launch_server" in inside
    assert "--model-path weights/GLM-4.7" in inside
    beside = bundler(*words, "-C", workspace.name).stdout
    assert f"pixi run --frozen --manifest-path {workspace}/pixi.toml --environment cu128" in beside
    assert f"--model-path {workspace}/weights/GLM-4.7" in beside


def test_scratch_lies_in_the_store_and_what_a_killed_pack_left_goes(tmp_path: Path) -> None:
    """A temporary folder of the system, often memory, is neither filled nor littered."""
    selection: Any = SimpleNamespace(environments=("one",), root=tmp_path, store=Store(tmp_path / "store"))
    with _scratch(selection) as first:
        assert first.parent == tmp_path / "store" / "packing"
        old, fresh = first.parent / "old", first.parent / "fresh"
        for left in (old, fresh):
            left.mkdir()
            (left / "runtime.tar.gz").touch()
        os.utime(old, (0, 0))
        with _scratch(selection):
            assert first.is_dir() and fresh.is_dir() and not old.exists()
    assert not first.exists()


def test_an_unfinished_bundle_is_called_so(bundler: Bundler, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / ".pack-journal").touch()
    for words in (("verify", folder), ("inspect", folder), ("unpack", folder, "to")):
        said(bundler(*words), 3, "unfinished", "bundler pack")


@pytest.mark.parametrize("name", ["my bundle", "..", "a/b", "x" * 300])
def test_a_name_that_no_bundle_can_have_is_refused_first(
    bundler: Bundler, tiny_model: Path, tmp_path: Path, name: str
) -> None:
    done = bundler("pack", "--model", tiny_model, "--name", name)
    said(done, 2, "can't be called")
    assert done.stdout == "" and not list(tmp_path.iterdir())


def test_what_the_server_does_not_load_is_named_and_carried_only_if_wanted(
    bundler: Bundler, tiny_model: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    (model / "original").mkdir()
    (model / "original" / "consolidated.00.pth").write_bytes(bytes(3_000_000))
    shown = bundler("plan", "--model", model)
    assert "original/consolidated.00.pth (3.0 MB; --all-files" in " ".join(shown.stdout.split())
    sizes = {}
    for words in ((), ("--all-files",)):
        done = bundler("plan", "--model", model, "--json", *words)
        (one,) = json.loads(done.stdout)["models"]
        sizes[words] = (one["size"], bool(one["left_out"]))
    (small, named), (whole, rest) = sizes.values()
    assert (whole - small, named, rest) == (3_000_000, True, False)
    done = bundler("pack", "--model", model, "-o", tmp_path / "out", "--all-files")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "out" / "model" / "manifest.json").read_text())
    assert any(path.endswith("original/consolidated.00.pth") for path, *_ in manifest["tree"])
