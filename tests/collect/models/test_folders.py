"""Model folders as people have them: a hub's cache, and what file managers leave."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from bundler.collect.models.source import carry
from bundler.collect.models.specs import open_model
from bundler.errors import DamagedError, InputError

if TYPE_CHECKING:
    from pathlib import Path

REVISION = "c" * 40


@pytest.fixture
def cached(tiny_model: Path, tmp_path: Path) -> Path:
    """Return the tiny model as Hugging Face's client caches it."""
    root = tmp_path / "hub/models--Team--tiny"
    snapshot = root / "snapshots" / REVISION
    for folder in (snapshot, root / "refs", root / "blobs"):
        folder.mkdir(parents=True)
    (root / "refs/main").write_text(REVISION)
    for number, file in enumerate(sorted(tiny_model.iterdir())):
        shutil.copy(file, root / f"blobs/{number}")
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    return root


@pytest.mark.parametrize("inside", ["", f"snapshots/{REVISION}"])
def test_a_hubs_cache_is_taken_as_what_it_is(inside: str, cached: Path, tmp_path: Path) -> None:
    entry = carry(open_model(str(cached / inside), workspace=tmp_path), tmp_path).entry
    assert (entry.spec.name, entry.revision, entry.facts.shards) == ("tiny", REVISION, 4)


def test_links_out_of_the_cache_are_refused_with_what_a_copy_does(cached: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("x")
    (cached / "snapshots" / REVISION / "other").symlink_to("../../../../other")
    with pytest.raises(DamagedError) as caught:
        assert open_model(str(cached), workspace=tmp_path).listing
    assert "cp -rL" in str(caught.value.hint)


def test_of_several_snapshots_main_is_meant_or_one_is_asked_for(cached: Path, tmp_path: Path) -> None:
    (cached / "snapshots/other").mkdir()
    assert open_model(str(cached), workspace=tmp_path).listing.revision == REVISION
    (cached / "refs/main").unlink()
    with pytest.raises(InputError, match="no one snapshot"):
        open_model(str(cached), workspace=tmp_path)


def test_strangers_are_skipped_at_any_depth(tiny_model: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "tiny")
    before = open_model(str(model), workspace=tmp_path).listing
    for name in (
        "._model-00001-of-00004.safetensors",
        ".DS_Store",
        "sub/.DS_Store",
        "desktop.ini",
        "Thumbs.db",
        "sub/.git/config",
        ".cache/x",
    ):
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text("x")
    assert open_model(str(model), workspace=tmp_path).listing == before
