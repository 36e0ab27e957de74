"""A finished bundle is replaced: the old one stays whole until the new one is, wherever that stops."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from bundler.archive import media
from bundler.archive import replace as replacing
from bundler.archive.bundle import Bundle
from bundler.archive.media import Media
from bundler.archive.verify import verify_bundle
from bundler.archive.writer import write_bundle
from bundler.common.progress import SilentReporter
from bundler.errors import DamagedError
from tests.archive.make import files_of, make_tree, recipe_of

if TYPE_CHECKING:
    from bundler.archive.recipe import Recipe


class Told(SilentReporter):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "tree")


@pytest.fixture
def old(tree: Path, tmp_path: Path) -> dict[str, bytes]:
    write_bundle(recipe_of(tree), [tmp_path / "disk/b"])
    return files_of(tmp_path / "disk/b")


@pytest.fixture
def new(tree: Path, tmp_path: Path) -> dict[str, bytes]:
    write_bundle(recipe_of(tree, level=3), [tmp_path / "new"])
    return files_of(tmp_path / "new")


def replaced(recipe: Recipe, *folders: Path) -> list[str]:
    told = Told()
    write_bundle(recipe, folders, replace=True, reporter=told)
    return told.lines


def test_the_old_bundle_stays_until_the_new_one_is_whole(
    tree: Path, tmp_path: Path, old: dict[str, bytes], new: dict[str, bytes]
) -> None:
    folder, victim = tmp_path / "disk/b", tree / "weights/m0/file-6"
    recipe = recipe_of(tree, level=3)
    good, times = victim.read_bytes(), victim.stat()
    victim.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    os.utime(victim, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(DamagedError):
        replaced(recipe, folder)
    assert files_of(folder) == old
    victim.write_bytes(good)
    os.utime(victim, ns=(times.st_atime_ns, times.st_mtime_ns))
    said = replaced(recipe, folder)
    assert [line for line in said if line.startswith("going on: ")]
    assert files_of(folder) == new
    assert [path.name for path in folder.parent.iterdir()] == ["b"]


def test_without_room_it_says_so_and_removes_the_old_one_first(
    tree: Path, tmp_path: Path, old: dict[str, bytes], new: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage(NamedTuple):
        free: int

    monkeypatch.setattr(replacing.shutil, "disk_usage", lambda _: Usage(500_000))  # type: ignore[attr-defined]
    monkeypatch.setattr(Media, "_free", lambda self, turn: 10**9)
    seen = []

    def clear(folder: Path) -> None:
        seen.append(files_of(folder))
        real(folder)

    real = replacing.clear
    monkeypatch.setattr(replacing, "clear", clear)
    said = replaced(recipe_of(tree, level=3), tmp_path / "disk/b")
    assert said == ["no room for 523 kB beside the bundle that is here: it is removed first"]
    assert seen[0].keys() >= old.keys()
    assert files_of(tmp_path / "disk/b") == new


class Killed(BaseException):
    """Ends a run between two calls, as a kill does."""


@pytest.mark.parametrize("again", ["same", "other"])
def test_killed_at_any_step_of_the_swap_one_of_them_is_whole(
    tree: Path,
    tmp_path: Path,
    old: dict[str, bytes],
    new: dict[str, bytes],
    again: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Afterwards the same command ends it, even if another one came between."""
    folder = tmp_path / "disk/b"
    saved = shutil.copytree(folder, tmp_path / "saved")
    real = {"rename": os.rename, "unlink": os.unlink, "rmdir": os.rmdir}

    for moment in range(100):
        shutil.rmtree(folder.parent)
        shutil.copytree(saved, folder)
        left = [moment]

        def count(self: Path, *words: Any, name: str, left: list[int] = left, **more: Any) -> Any:
            swapping = (folder.parent / "b.replacing/SHA256SUMS").exists() or (
                folder.parent / "b.replaced"
            ).exists()
            if swapping and not left[0]:
                raise Killed
            left[0] -= swapping
            return getattr(Path, f"_real_{name}")(self, *words, **more)

        with monkeypatch.context() as patching:
            for name in real:
                patching.setattr(Path, f"_real_{name}", getattr(Path, name), raising=False)
                patching.setattr(
                    Path, name, lambda self, *words, name=name, **more: count(self, *words, name=name, **more)
                )
            try:
                replaced(recipe_of(tree, level=3), folder)
                break
            except Killed:
                pass
        places = [folder, replacing.beside(folder), folder.with_name("b.replaced")]
        whole = [files_of(place) for place in places if place.is_dir() and (place / "SHA256SUMS").exists()]
        assert any(
            {**one, ".pack-journal": b""}.items() >= kept.items() for one in whole for kept in (old, new)
        )
        if again == "other":
            replaced(recipe_of(tree), folder)
            assert files_of(folder) == old
        replaced(recipe_of(tree, level=3), folder)
        assert files_of(folder) == new
        assert [path.name for path in folder.parent.iterdir()] == ["b"]
    else:
        pytest.fail("the swap never ended")
    assert moment > 5


def test_on_fewer_disks_than_the_old_one(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new: dict[str, bytes]
) -> None:
    room = {"one": 250_000, "two": 10**9}
    monkeypatch.setattr(media, "_SPARE", 0)

    def free(self: Media, turn: int) -> int:
        folder = self.folders[turn]
        return room[folder.parent.name] - sum(path.stat().st_size for path in folder.iterdir())

    monkeypatch.setattr(Media, "_free", free)
    disks = [tmp_path / name / "b" for name in room]
    write_bundle(recipe_of(tree), disks)
    assert all(any(disk.glob("data-*")) for disk in disks)
    room["one"] = 10**9
    replaced(recipe_of(tree, level=3), *disks)
    assert files_of(disks[0]) == new
    assert not disks[1].exists()
    assert [path.name for disk in disks for path in disk.parent.iterdir()] == ["b"]
    with Bundle.open([disks[0]]) as bundle:
        verify_bundle(bundle)


def test_what_somebody_put_into_the_old_one_stays(
    tree: Path, tmp_path: Path, old: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came while the new bundle was written: before that, it would have been refused."""
    folder = tmp_path / "disk/b"
    monkeypatch.setattr(Media, "check_foreign", lambda self, known: None)
    (folder / "mine.txt").write_text("mine")
    replaced(recipe_of(tree, level=3), folder)
    assert (tmp_path / "disk/b.replaced/mine.txt").read_text() == "mine"
