"""In which order frames are unpacked: each once, several files in turn, one by one where heads move."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.archive import turns
from bundler.archive.bundle import Bundle
from bundler.archive.turns import files_at_once, heads_move, in_turns
from bundler.archive.unpack import unpack_bundle
from bundler.archive.volume_reader import FileVolume, crowds
from bundler.archive.writer import write_bundle
from tests.archive.make import FRAME, content, recipe_of

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bundle]:
    """Yield a bundle of ten files of ten frames, and as many small ones."""
    folder = tmp_path_factory.mktemp("turns")
    (folder / "tree").mkdir()
    for number in range(10):
        (folder / "tree" / f"big-{number}").write_bytes(content(10 * FRAME, number, "random"))
        (folder / "tree" / f"small-{number}").write_bytes(content(900, number))
    write_bundle(recipe_of(folder / "tree"), [folder / "bundle"])
    with Bundle.open([folder / "bundle"]) as opened:
        yield opened


@given(at_once=st.integers(1, 12), data=st.data())
def test_each_frame_once(bundle: Bundle, at_once: int, data: st.DataObject) -> None:
    numbers = sorted(data.draw(st.sets(st.integers(0, len(bundle.layout) - 1))))
    assert sorted(in_turns(numbers, bundle.layout, at_once)) == numbers


def test_as_many_files_at_once_as_were_asked_for(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "LEAST_GROUP", 1)
    numbers = range(len(bundle.layout))
    order = list(in_turns(numbers, bundle.layout, 3))
    assert list(in_turns(numbers, bundle.layout, 1)) == [*numbers] != order

    def files(frame: int) -> set[int]:
        return {piece.entry for piece in bundle.layout.slices(bundle.layout.frame(frame))}

    large = {number for number, entry in enumerate(bundle.manifest.tree) if entry.size > FRAME}
    begun: set[int] = set()
    left = {file: len(bundle.layout.of_file(file)) for file in large}
    widest = 0
    for frame in order:
        for file in files(frame) & large:
            begun.add(file)
            left[file] -= 1
        widest = max(widest, sum(left[file] > 1 for file in begun))
    assert not any(left.values()) and 2 <= widest <= 4


def disk(folder: Path, place: Path, name: str, rotational: str) -> Path:
    """Make a kernel's folder of devices as it is for a partition of a disk that the place lies on."""
    number = place.stat().st_dev
    partition = folder / "devices" / name / f"{name}1"
    partition.mkdir(parents=True)
    (partition.parent / "queue").mkdir()
    (partition.parent / "queue" / "rotational").write_text(f"{rotational}\n")
    (folder / "block").mkdir()
    (folder / "block" / f"{os.major(number)}:{os.minor(number)}").symlink_to(partition)
    return folder / "block"


@pytest.mark.parametrize(
    ("name", "rotational", "moves"),
    [
        ("sda", "1", True),
        ("sr0", "1", True),
        ("sda", "0", False),
        ("vda", "1", False),
        ("nvme0n", "0", False),
    ],
)
def test_where_heads_move(tmp_path: Path, name: str, rotational: str, moves: bool) -> None:
    devices = disk(tmp_path, tmp_path, name, rotational)
    assert heads_move(tmp_path, devices) is moves
    assert files_at_once([tmp_path], 16, devices) == (1 if moves else 8)
    assert files_at_once([tmp_path], 1, devices) == 1


def test_what_the_kernel_knows_nothing_of(tmp_path: Path) -> None:
    assert not heads_move(tmp_path, tmp_path / "nothing")
    assert not heads_move(tmp_path / "nothing")
    assert isinstance(heads_move(Path("/")), bool)


@pytest.mark.parametrize("crowding", [True, False])
def test_what_crowds_the_cache_is_let_go(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crowding: bool
) -> None:
    """A bundle larger than half of the free memory would put a serving host's weights out of it."""
    gone: list[int] = []
    monkeypatch.setattr("bundler.archive.unpack.crowds", lambda size: crowding and size > 0)
    monkeypatch.setattr(FileVolume, "forget", lambda _, offset, size: gone.append(size))
    unpack_bundle(bundle, tmp_path / "out")
    assert sorted(gone) == (sorted(bundle.manifest.frames.stored) if crowding else [])


def test_how_much_crowds_it() -> None:
    free = psutil.virtual_memory().available
    assert crowds(free) and not crowds(free // 4)
