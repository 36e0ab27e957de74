"""What an earlier run wrote is not believed: it may have been altered since, and its time unchanged."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from bundler.archive import batches
from bundler.archive.target import Target
from bundler.archive.unpack_state import UnpackState
from bundler.archive.volume_writer import VolumeWriter
from bundler.archive.writer import write_bundle
from tests.archive.make import files_of, flip, make_tree, recipe_of, snapshot, unpack

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class StoppedError(Exception):
    """The run ends here."""


def after(count: int, real: Callable[..., object]) -> Callable[..., object]:
    """Let so many calls do their work, and end the run at the next."""
    calls = 0

    def counted(*words: object) -> object:
        nonlocal calls
        calls += 1
        if calls > count:
            raise StoppedError
        return real(*words)

    return counted


def quietly(path: Path, alter: Callable[[Path], object]) -> None:
    """Alter a file and leave its time as it was."""
    times = path.stat()
    alter(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


ALTERED = {
    "flipped": lambda path: flip(path, 100, 3),
    "cut": lambda path: os.truncate(path, path.stat().st_size - 1),
    "empty": lambda path: os.truncate(path, 0),
    "grown": lambda path: os.truncate(path, path.stat().st_size + 70_000),
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "tree")


@pytest.fixture
def bundle(tree: Path, tmp_path: Path) -> Path:
    write_bundle(recipe_of(tree), [tmp_path / "bundle"])
    return tmp_path / "bundle"


@pytest.mark.parametrize("way", ALTERED)
@pytest.mark.parametrize("commits", [0, 1])
def test_files_under_way_are_hashed_when_they_become_whole(
    tree: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, commits: int
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as stopping:
        stopping.setattr(batches, "BATCH_BYTES", 60_000)
        stopping.setattr(UnpackState, "commit", after(commits, UnpackState.commit))
        with pytest.raises(StoppedError):
            unpack(bundle, out, threads=1)
    begun = [path for path in (out / ".bundler/partial").rglob("file-*") if path.stat().st_size > 200]
    assert begun
    for path in begun:
        quietly(path, ALTERED[way])
    unpack(bundle, out, threads=2)
    assert snapshot(out) == snapshot(tree)


@pytest.mark.parametrize("way", ALTERED)
def test_a_file_that_got_its_name_before_the_journal_said_so_is_hashed(
    tree: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    out, placed = tmp_path / "out", []

    def place(self: Target, entry: object) -> int:
        real(self, entry)  # type: ignore[arg-type]
        placed.append(self.root / entry.path)  # type: ignore[attr-defined]
        if placed[-1].stat().st_size > 1000:
            raise StoppedError
        return placed[-1].stat().st_mtime_ns

    real = Target.place
    with monkeypatch.context() as stopping:
        stopping.setattr(Target, "place", place)
        with pytest.raises(StoppedError):
            unpack(bundle, out, threads=1)
    quietly(placed[-1], ALTERED[way])
    unpack(bundle, out, threads=2)
    assert snapshot(out) == snapshot(tree)


@pytest.mark.parametrize("way", ALTERED)
def test_a_finished_volume_of_a_killed_pack_is_read_again(
    tree: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    target = tmp_path / "killed"
    with monkeypatch.context() as stopping:
        stopping.setattr(VolumeWriter, "_name", after(2, VolumeWriter._name))
        with pytest.raises(StoppedError):
            write_bundle(recipe_of(tree), [target])
    quietly(target / "data-00001.tar.zst", ALTERED[way])
    write_bundle(recipe_of(tree), [target])
    assert files_of(target) == files_of(bundle)
