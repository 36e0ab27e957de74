"""In which order a pack and an unpack reach the disk: what a power cut may leave is decided here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from bundler.archive.writer import write_bundle
from bundler.cli.main import bundler_command
from tests.archive.make import make_tree, recipe_of, snapshot, unpack
from tests.support.disk import WatchedDisk

if TYPE_CHECKING:
    from pathlib import Path

VOLUMES = 6


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WatchedDisk:
    """Return the disk that a bundle was written to."""
    recipe = recipe_of(make_tree(tmp_path / "tree"))
    (tmp_path / "bundle").mkdir()
    with monkeypatch.context() as watching:
        disk = WatchedDisk(tmp_path / "bundle", watching)
        manifest = write_bundle(recipe, [disk.root], threads=2)
    assert len(manifest.volumes) == VOLUMES
    return disk


@pytest.fixture
def unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WatchedDisk:
    """Return the disk that a bundle was unpacked to."""
    write_bundle(recipe_of(make_tree(tmp_path / "tree")), [tmp_path / "bundle"])
    (tmp_path / "out").mkdir()
    with monkeypatch.context() as watching:
        disk = WatchedDisk(tmp_path / "out", watching)
        words = ["unpack", str(tmp_path / "bundle"), str(disk.root), "--no-install"]
        done = CliRunner().invoke(bundler_command, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert snapshot(disk.root) == snapshot(tmp_path / "tree")
    return disk


def test_a_packs_files_are_synced_before_their_names_and_their_folder_after(packed: WatchedDisk) -> None:
    packed.check_names()
    volumes = [f"data-{number:05}.tar.zst" for number in range(1, VOLUMES + 1)]
    assert [name for name in packed.names() if name in volumes] == volumes


def test_a_packs_journal_speaks_of_synced_frames_and_is_synced_before_the_next_step(
    packed: WatchedDisk,
) -> None:
    packed.check_journal(".pack-journal")


def test_the_sums_come_last_and_the_manifest_before_them(packed: WatchedDisk) -> None:
    """A folder with ``SHA256SUMS`` is a finished bundle: all else is on the disk by then."""
    packed.check_last("SHA256SUMS")
    others = {path.name for path in packed.root.iterdir()} - {"SHA256SUMS"}
    assert set(packed.names()[:-1]) == others
    assert {"manifest.json", "README.txt", "install.sh", "pack-log.json"} < others


def test_an_unpacks_files_are_synced_before_their_names_and_their_folders_after(
    unpacked: WatchedDisk,
) -> None:
    unpacked.check_names(at_once=False)
    files = {path for path, (kind, *_) in snapshot(unpacked.root).items() if kind == "file"}
    assert files <= set(unpacked.names())


def test_an_unpacks_journal_speaks_of_synced_files_and_is_synced_before_they_get_their_names(
    unpacked: WatchedDisk,
) -> None:
    unpacked.check_journal(".bundler/journal")


def test_the_kept_manifest_comes_after_all_files_and_the_receipt_after_it(unpacked: WatchedDisk) -> None:
    """Both say that the bundle is here: all files and their names are on the disk by then."""
    unpacked.check_last(".bundler/receipt.json")
    (kept,) = (unpacked.root / ".bundler/bundles").iterdir()
    names = unpacked.names()
    behind = names[names.index(f".bundler/bundles/{kept.name}") + 1 :]
    assert not [name for name in behind if name.startswith("weights/")]


def test_a_new_folder_of_a_bundle_is_on_the_disk_before_anything_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(make_tree(tmp_path / "tree"))
    with monkeypatch.context() as watching:
        disk = WatchedDisk(tmp_path, watching)
        write_bundle(recipe, [tmp_path / "new/bundle"], threads=2)
    assert disk.check_folders() == {"new", "new/bundle"}


def test_each_new_folder_of_a_destination_is_on_the_disk_before_anything_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the destination itself down to the folders of files, of files under way and of kept manifests."""
    write_bundle(recipe_of(make_tree(tmp_path / "tree")), [tmp_path / "bundle"])
    with monkeypatch.context() as watching:
        disk = WatchedDisk(tmp_path, watching)
        unpack(tmp_path / "bundle", tmp_path / "new/out")
    folders = {f"new/out/{path}" for path, (kind, *_) in snapshot(tmp_path / "tree").items() if kind == "dir"}
    own = {"new", "new/out", "new/out/.bundler", "new/out/.bundler/bundles", "new/out/.bundler/partial"}
    assert disk.check_folders() == folders | own
