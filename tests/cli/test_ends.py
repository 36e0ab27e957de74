"""How a command ends that is told to, or whose reader went away: one line, one code, nothing lost."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from bundler.archive.writer import write_bundle
from tests.archive.make import content, make_tree, recipe_of
from tests.cli.conftest import PROJECT, run_bundler

if TYPE_CHECKING:
    from pathlib import Path


def little(folder: Path, large: int = 0) -> Path:
    tree = make_tree(folder / "tree")
    (tree / "large").write_bytes(content(large, 1, "random"))
    write_bundle(recipe_of(tree, volume_size=10**9), [folder / "bundle"])
    return folder / "bundle"


def start(folder: Path, *words: object, output: int = subprocess.PIPE) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "bundler", *map(str, words)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "NO_COLOR": "1"},
        stdout=output,
        stderr=output,
        text=True,
    )


def end_amid(process: subprocess.Popen[str], journal: Path) -> None:
    """Tell a command to end once its journal knows frames, and look at how it does."""
    while not journal.exists() or b'"frames"' not in journal.read_bytes():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert said.splitlines()[-1] == "interrupted: the same command goes on where it stopped"


def test_told_to_end(tmp_path: Path) -> None:
    words = ("unpack", little(tmp_path, 250_000_000), tmp_path / "to", "--no-install", "--skip-preflight")
    process = start(tmp_path, *words, "--threads", "1")
    assert process.stderr is not None
    assert process.stderr.readline().startswith("unpacking little")
    end_amid(process, tmp_path / "to/.bundler/journal")
    again = run_bundler(*words, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "going on: " in again.stderr


def test_a_pack_told_to_end_while_it_writes_volumes(tiny_model: Path, tmp_path: Path) -> None:
    """What is written stays, the same command goes on with it: the volumes are those of a pack in one go."""
    model = shutil.copytree(tiny_model, tmp_path / "tiny")
    (model / "notes.bin").write_bytes(content(250_000_000, 1, "random"))
    words = ("pack", "--model", model, "--all-files", "--volume-size", "100MB", "--threads", "1")
    process = start(tmp_path, *words, "-o", tmp_path / "cut")
    cut = tmp_path / "cut" / "tiny"
    end_amid(process, cut / ".pack-journal")
    assert not (cut / "SHA256SUMS").exists()
    again = run_bundler(*words, "-o", tmp_path / "cut", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    there = re.search(r"going on: ([\d.]+) MB of 26\d MB are written", again.stderr)
    assert there and 0 < float(there[1]) < 260
    at_once = run_bundler(*words, "-o", tmp_path / "whole", cwd=tmp_path)
    assert at_once.returncode == 0, at_once.stderr
    assert volumes(cut) == volumes(tmp_path / "whole" / "tiny")


def volumes(bundle: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in bundle.glob("data-*")}


def test_a_reader_of_the_progress_that_went_away(tmp_path: Path) -> None:
    bundle = little(tmp_path)
    reading, writing = os.pipe()
    os.close(reading)
    process = start(tmp_path, "unpack", bundle, tmp_path / "to", "--no-install", output=writing)
    os.close(writing)
    assert process.wait(60) == 0
    assert (tmp_path / "to/.bundler/receipt.json").is_file(), "the work goes to its end, unheard"


def test_a_reader_of_the_answer_that_went_away(tmp_path: Path) -> None:
    bundle = little(tmp_path)
    done = subprocess.run(
        ["sh", "-c", '{ "$0" -m bundler inspect "$1"; echo $? >code; } | true', sys.executable, bundle],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=tmp_path,
    )
    assert done.stderr == ""
    assert (tmp_path / "code").read_text() == "0\n"
