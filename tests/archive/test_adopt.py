"""What stock tools took out of a bundle is adopted by ``unpack``: nothing is written twice."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from bundler.archive.target import Target
from bundler.archive.unpack import Unpacked
from bundler.archive.writer import write_bundle
from bundler.errors import DestinationError
from tests.archive.make import flip, make_tree, recipe_of, snapshot, unpack

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """Return a folder with ``bundle``, and ``to``, where a stock ``tar x`` put all of it."""
    tree = make_tree(tmp_path / "tree")
    write_bundle(recipe_of(tree), [tmp_path / "bundle"])
    shutil.copytree(tree, tmp_path / "to", symlinks=True)
    return tmp_path


def adopted(scene: Path) -> Unpacked:
    done = unpack(scene / "bundle", scene / "to")
    assert isinstance(done, Unpacked)
    assert snapshot(scene / "to") == snapshot(scene / "tree")
    return done


def test_all_of_it(scene: Path) -> None:
    before = {path: path.lstat().st_ino for path in (scene / "to").rglob("*")}
    (scene / "to/weights/m0/file-3").chmod(0o600)
    done = adopted(scene)
    assert (done.written, done.kept) == (0, 9)
    assert {path: path.lstat().st_ino for path in before} == before


def test_a_part_of_it(scene: Path) -> None:
    (scene / "to/weights/m0/file-6").unlink()
    assert 300_000 < adopted(scene).written < 400_000


@pytest.mark.parametrize("size", [0, 1, 20_000, 140_001, 299_999])
def test_a_file_that_an_interrupted_tar_left_short_is_made_whole(scene: Path, size: int) -> None:
    os.truncate(scene / "to/weights/m0/file-6", size)
    shutil.rmtree(scene / "to/weights/m1")
    assert adopted(scene).kept == 5


def test_a_short_file_with_other_content_is_somebodys(scene: Path) -> None:
    """Also where it begins alike, and where the bundle can't tell."""
    file = scene / "to/weights/m0/file-6"
    mine = file.read_bytes()[:100_000] + b"mine"
    file.write_bytes(mine)
    with pytest.raises(DestinationError, match="nothing was overwritten"):
        unpack(scene / "bundle", scene / "to")
    assert file.read_bytes() == mine
    file.write_bytes(mine[:-4])
    for volume in (scene / "bundle").glob("data-*"):
        flip(volume, 3000)
    with pytest.raises(DestinationError):
        unpack(scene / "bundle", scene / "to")
    assert file.read_bytes() == mine[:-4]


def test_the_umask_of_tar_decides_nothing(scene: Path) -> None:
    for path in (scene / "to").rglob("*"):
        if not path.is_symlink():
            path.chmod(0o700 if path.is_dir() else 0o600)
    adopted(scene)


def test_what_differs_is_not_overwritten(scene: Path) -> None:
    file = scene / "to/weights/m0/file-6"
    file.write_bytes(b"mine")
    with pytest.raises(DestinationError, match="nothing was overwritten"):
        unpack(scene / "bundle", scene / "to")
    assert file.read_bytes() == b"mine"
    (scene / "to/thesis").touch()
    shutil.rmtree(scene / "to/.bundler")
    with pytest.raises(DestinationError, match="holds other things: thesis"):
        unpack(scene / "bundle", scene / "to")


def test_a_kill_while_reading_loses_no_file_that_was_read(
    scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adopt, seen = Target.adopt, []

    def killed(self: Target, entry: object, advance: object) -> bool:
        if len(seen) == 5:
            raise KeyboardInterrupt
        seen.append(entry)
        return adopt(self, entry, advance)  # type: ignore[arg-type]

    monkeypatch.setattr(Target, "adopt", killed)
    with pytest.raises(KeyboardInterrupt):
        unpack(scene / "bundle", scene / "to", threads=1)
    again = []
    monkeypatch.setattr(
        Target,
        "adopt",
        lambda *words: again.append(words[1]) or adopt(*words),  # type: ignore[func-returns-value]
    )
    adopted(scene)
    assert 0 < len(again) <= 9 - 4, "what the journal knows isn't read again"
