"""``kill -9`` at any moment, then the same command again: the same bytes."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from bundler.archive.writer import write_bundle
from tests.archive.make import files_of, make_tree, recipe_of, snapshot

if TYPE_CHECKING:
    from pathlib import Path

SIZES = [3_000_000, 10, 0, 900_000, 20_000, 2_500_000, *([5000] * 20), 700_000]


def command(word: str, first: Path, second: Path, threads: int) -> list[str]:
    return [sys.executable, "-m", "tests.archive.make", word, str(first), str(second), str(threads)]


def run_killed(arguments: list[str], watched: Path, moment: float) -> bool:
    """Kill a command a moment after its first file is there; tell whether it was at work."""
    process = subprocess.Popen(arguments)
    try:
        while process.poll() is None and not (watched.exists() and any(watched.iterdir())):
            time.sleep(0.001)
        time.sleep(moment)
        killed = process.poll() is None
        process.kill()
        return killed
    finally:
        process.wait()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("kill") / "tree", SIZES)


@pytest.fixture(scope="module")
def bundle(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kill") / "bundle"
    write_bundle(recipe_of(tree, volume_size=1_000_000), [folder])
    return folder


@pytest.mark.parametrize("threads", [1, 2, 12])
def test_a_killed_pack_goes_on(tree: Path, tmp_path: Path, threads: int) -> None:
    """Killed several times at random moments; volumes, manifest and sums are those of a run in one go."""
    write_bundle(recipe_of(tree), [tmp_path / "whole"])
    target, chance = tmp_path / "killed", random.Random(threads)
    words = command("pack", tree, target, threads)
    for attempt in range(20):
        # On a quick machine the pack may be done before the signal comes: sooner, then.
        if run_killed(words, target, chance.uniform(0, 0.15 / (attempt + 1))):
            break
        shutil.rmtree(target)
    else:
        pytest.fail("no kill met a pack at work")
    for _ in range(2):
        run_killed(words, target, chance.uniform(0, 0.15))
    subprocess.run(command("pack", tree, target, threads), check=True)
    assert files_of(target) == files_of(tmp_path / "whole")


@pytest.mark.parametrize("threads", [1, 2, 12])
def test_a_killed_unpack_goes_on(tree: Path, bundle: Path, tmp_path: Path, threads: int) -> None:
    """After each kill, every file with its own name is whole; at the end all are."""
    target, chance, whole = tmp_path / "killed", random.Random(threads), snapshot(tree)
    for _ in range(3):
        run_killed(command("unpack", bundle, target, threads), target, chance.uniform(0, 0.15))
        for name, facts in snapshot(target).items() if target.exists() else ():
            assert facts == whole[name]
    subprocess.run(command("unpack", bundle, target, threads), check=True)
    assert snapshot(target) == whole
    assert not list((target / ".bundler/partial").iterdir())
    shutil.rmtree(target)


@pytest.mark.parametrize("word", ["pack", "unpack"])
def test_an_interrupt_ends_it_at_once(tree: Path, bundle: Path, tmp_path: Path, word: str) -> None:
    """No thread keeps the process alive, what was written counts, and the same command goes on."""
    target = tmp_path / "target"
    arguments = command(word, tree if word == "pack" else bundle, target, 2)
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE)
    while process.poll() is None and not (
        target.exists() and any(target.rglob("*data-*" if word == "pack" else "*m0"))
    ):
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode != 0
    assert b"KeyboardInterrupt" in errors
    subprocess.run(arguments, check=True)
    if word == "unpack":
        assert snapshot(target) == snapshot(tree)
    else:
        write_bundle(recipe_of(tree), [tmp_path / "whole"])
        assert files_of(target) == files_of(tmp_path / "whole")
