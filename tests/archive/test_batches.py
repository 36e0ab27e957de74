"""What is written, made durable in batches: a batch that was lost is the last one."""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING

import pytest

from bundler.archive import batches
from bundler.archive.batches import Batches
from bundler.archive.writer import write_bundle
from bundler.errors import PreflightError
from tests.archive.make import files_of, make_tree, recipe_of, snapshot, unpack

if TYPE_CHECKING:
    from pathlib import Path


class FirstBatchLost:
    """Lets the first sync of written data fail, and remembers what is journalled by then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, journal: Path) -> None:
        self._real, self._journal = os.fsync, journal
        self.known: bytes | None = None
        monkeypatch.setattr(os, "fsync", self._fsync)

    def _fsync(self, file: int) -> None:
        in_batch = threading.current_thread().name.startswith(("volume-sync", "unpack-sync"))
        if in_batch and self.known is None:
            self.known = self._journal.read_bytes()
            raise OSError(errno.ENOSPC, "No space left on device")
        self._real(file)


@pytest.mark.parametrize("side", ["pack", "unpack"])
def test_a_batch_that_was_lost_ends_the_journal(
    side: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames are journalled by their order, and a disk tells of a failed write once: none may follow."""
    tree, whole, other = make_tree(tmp_path / "tree"), tmp_path / "whole", tmp_path / "other"
    recipe = recipe_of(tree)
    write_bundle(recipe, [whole])

    def work() -> None:
        if side == "pack":
            write_bundle(recipe, [other])
        else:
            unpack(whole, other)

    monkeypatch.setattr(batches, "BATCH_BYTES", 20_000)
    journal = other / {"pack": ".pack-journal", "unpack": ".bundler/journal"}[side]
    with monkeypatch.context() as patched, pytest.raises(PreflightError):
        lost = FirstBatchLost(patched, journal)
        work()
    assert lost.known is not None
    assert journal.read_bytes() == lost.known
    work()
    if side == "pack":
        assert files_of(other) == files_of(whole)
    else:
        assert snapshot(other) == snapshot(tree)


def test_after_an_error_the_rest_is_made_durable() -> None:
    done: list[list[int]] = []
    several: Batches[int] = Batches(done.append, "test")
    several.add(1, batches.BATCH_BYTES)
    several.add(2, 1)
    several.close()
    assert done == [[1], [2]]


def test_a_slow_disk_lets_the_batch_grow_and_then_the_writing_wait() -> None:
    """The memory that unsynced bytes take is bounded."""
    done: list[list[int]] = []
    free = threading.Event()

    def slow(batch: list[int]) -> None:
        assert free.wait(10)
        done.append(batch)

    several: Batches[int] = Batches(slow, "test")
    for number in range(8):
        several.add(number, batches.BATCH_BYTES)
    waiting = threading.Thread(target=several.add, args=(8, batches.BATCH_BYTES))
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive()
    free.set()
    waiting.join(10)
    several.flush()
    several.close()
    assert done == [[0], [*range(1, 9)]]
