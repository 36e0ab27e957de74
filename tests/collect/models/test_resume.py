"""A fetch that is killed goes on where it was, and the pack of it equals the folder's."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bundler import manifest
from bundler.archive.recipe import Recipe
from bundler.archive.writer import write_bundle
from bundler.collect.models.fetch import hash_cache
from bundler.collect.models.source import carry
from bundler.collect.models.specs import open_model
from bundler.common import hashcache
from bundler.common.hashcache import HashCache
from bundler.common.progress import SILENT
from bundler.errors import DamagedError
from bundler.manifest import Manifest, Writer
from tests.collect.models.conftest import COMMIT, MODEL
from tests.support.hubs import Fault, read_folder

if TYPE_CHECKING:
    from pathlib import Path

    from bundler.collect.models.source import CarriedModel
    from tests.support.hubs import Hub, Repo

CLI = (sys.executable, "-m", "bundler", "pack", "--model")


def partial_bytes(weights: Path) -> int:
    """Return how much of the model lies there, whole or partly."""
    return sum(path.stat().st_size for path in weights.rglob("*.safetensors"))


def pack(root: Path, word: str, output: str, *options: str) -> subprocess.Popen[str]:
    """Start ``bundler pack`` as a user does."""
    words = [*CLI, word, "-C", str(root), "-o", str(root / output), *options]
    return subprocess.Popen(words, cwd=root, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def killed(root: Path, enough: int) -> None:
    """Pack in a process of its own, and kill it as soon as enough bytes are there."""
    child = pack(root, f"ms:{MODEL}", "hub")
    deadline = time.monotonic() + 30
    while partial_bytes(root / "weights") < enough:
        assert child.poll() is None, "the fetch ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert child.returncode == -signal.SIGKILL


def test_killed_twice_and_gone_on_with_equals_the_folder(
    hub: Hub, repo: Repo, tiny_model: Path, tmp_path: Path
) -> None:
    shards = [path.name for path in sorted(tiny_model.glob("*.safetensors"))]
    size = sum((tiny_model / name).stat().st_size for name in shards)
    for name in shards:
        repo.faults[name] = [Fault(2, slow=0.02)]
    killed(tmp_path, size // 5)
    killed(tmp_path, size // 2)
    repo.faults.clear()
    before = len(hub.requests)
    assert finished(tmp_path, f"ms:{MODEL}", "hub") == finished(tmp_path, str(tiny_model), "folder")
    asked = [ranged for _, path, ranged in hub.requests[before:] if path.startswith("/store/")]
    assert any(ranged and ranged != "bytes=0-" for ranged in asked)
    assert read_folder(tmp_path / "weights/tiny-glm4-moe") == read_folder(tiny_model)


def finished(root: Path, word: str, output: str, *options: str) -> dict[str, str]:
    """Pack to the end; return the volumes' digests."""
    child = pack(root, word, output, *options)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 0, errors
    return volumes(root / output / "tiny-glm4-moe")


def volumes(folder: Path) -> dict[str, str]:
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("data-*")}
    assert found
    return found


def packed(carried: CarriedModel, folder: Path) -> dict[str, str]:
    """Write a bundle of a model alone; return its volumes' digests."""
    head = Manifest(name="m", writer=Writer(bundler="", libzstd=""), models=(carried.entry,))
    folder.mkdir()
    write_bundle(Recipe(head=head, members=carried.members), [folder], threads=2, reporter=SILENT)
    return volumes(folder)


def test_a_streamed_pack_equals_the_folders(repo: Repo, tiny_model: Path, tmp_path: Path) -> None:
    repo.faults["model-00003-of-00004.safetensors"] = [Fault(2, cut_at=1_000_000)]
    streamed = carry(open_model(f"hf:{MODEL}", workspace=tmp_path), tmp_path / "weights", stream=True)
    from_folder = carry(open_model(str(tiny_model), workspace=tmp_path), tmp_path / "weights")
    assert packed(streamed, tmp_path / "hub") == packed(from_folder, tmp_path / "folder")
    written = manifest.read(tmp_path / "hub/manifest.json")
    assert written.models[0].revision == COMMIT
    assert written.models[0].origin == f"huggingface:{MODEL}"


def test_a_killed_stream_goes_on_and_a_wrong_byte_leaves_nothing_wrong(
    hub: Hub, repo: Repo, tiny_model: Path, tmp_path: Path
) -> None:
    shards = [path.name for path in sorted(tiny_model.glob("*.safetensors"))]
    for name in shards:
        repo.faults[name] = [Fault(99, slow=0.01)]
    child = pack(tmp_path, f"ms:{MODEL}", "hub", "--stream")
    deadline = time.monotonic() + 30
    while not any(path.stat().st_size > 1_000_000 for path in (tmp_path / "hub").rglob("data-*")):
        assert child.poll() is None, "the pack ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.kill()
    child.communicate()
    for name in shards:
        # What lies in the middle is read once only: by the archive, not by the proof.
        repo.faults[name] = []
    repo.faults[shards[-1]] = [Fault(99, flip=900_000)]
    wrong = pack(tmp_path, f"ms:{MODEL}", "hub", "--stream")
    _, errors = wrong.communicate(timeout=60)
    assert wrong.returncode == DamagedError.exit_code
    assert shards[-1] in errors
    repo.faults.clear()
    streamed = finished(tmp_path, f"ms:{MODEL}", "hub", "--stream")
    assert streamed == finished(tmp_path, str(tiny_model), "folder")
    assert not (tmp_path / "weights/tiny-glm4-moe").exists()


def test_an_interrupted_fetch_ends_at_once_and_leaves_no_thread(repo: Repo, tmp_path: Path) -> None:
    for number in range(1, 5):
        repo.faults[f"model-0000{number}-of-00004.safetensors"] = [Fault(9, slow=0.2)]
    child = pack(tmp_path, f"ms:{MODEL}", "hub")
    deadline = time.monotonic() + 30
    while partial_bytes(tmp_path / "weights") < 300_000:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    start = time.monotonic()
    _, errors = child.communicate(timeout=20)
    assert time.monotonic() - start < 5
    assert child.returncode == 130
    assert errors.splitlines()[-1].startswith("interrupted: the same command goes on")
    assert partial_bytes(tmp_path / "weights") >= 300_000


@pytest.mark.parametrize("word", ["ms", "hf"])
@pytest.mark.parametrize("options", [(), ("--stream",)], ids=["disk", "stream"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("fault", [Fault(9, slow=90.0), Fault(9, mute=90.0)], ids=["silent", "mute"])
def test_an_interrupt_ends_a_fetch_whose_hub_fell_silent(
    hub: Hub,
    repo: Repo,
    tmp_path: Path,
    word: str,
    options: tuple[str, ...],
    number: signal.Signals,
    fault: Fault,
) -> None:
    """Whether it stops in the middle of a file or doesn't even begin to answer."""
    for name in range(1, 5):
        repo.faults[f"model-0000{name}-of-00004.safetensors"] = [replace(fault)]
    child = pack(tmp_path, f"{word}:{MODEL}", "hub", *options)
    deadline = time.monotonic() + 30
    while not hub.content_requests(".safetensors"):
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.5)
    child.send_signal(number)
    start = time.monotonic()
    _, errors = child.communicate(timeout=150)
    assert time.monotonic() - start < 3
    assert child.returncode == 130
    assert errors.splitlines()[-1].startswith("interrupted: the same command goes on")


def test_a_fetch_told_to_end_says_what_is_there_when_it_goes_on(
    repo: Repo, tiny_model: Path, tmp_path: Path
) -> None:
    repo.faults[max(path.name for path in tiny_model.glob("*.safetensors"))] = [Fault(99, slow=0.2)]
    words = [sys.executable, "-m", "bundler", "fetch", "--model", f"ms:{MODEL}", "-C", str(tmp_path)]
    child = subprocess.Popen(
        words, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    deadline = time.monotonic() + 30
    while partial_bytes(tmp_path / "weights") < 1_000_000:
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGTERM)
    said = child.communicate(timeout=20)[1]
    assert child.returncode == 130
    assert said.splitlines()[-1] == "interrupted: the same command goes on where it stopped"
    repo.faults.clear()
    again = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "going on: " in again.stderr


class TestHashCache:
    """Digests are kept as long as size and time stay."""

    def test_a_file_is_read_once_and_again_after_a_change(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read: list[Path] = []
        real = hashcache.sha256_of
        monkeypatch.setattr(
            hashcache, "sha256_of", lambda path, advance: read.append(path) or real(path, advance)
        )
        file = tmp_path / "a/b"
        file.parent.mkdir()
        file.write_bytes(b"one")
        cache = HashCache(tmp_path / "state/hashes", tmp_path)
        steps: list[int] = []
        digest = cache.sha256(file, advance=steps.append)
        assert digest == hashlib.sha256(b"one").hexdigest()
        again = HashCache(tmp_path / "state/hashes", tmp_path)
        assert again.sha256(file, advance=steps.append) == digest
        assert (len(read), steps) == (1, [3, 3])
        assert again.sha256(file, fresh=True) == digest
        assert len(read) == 2
        os.utime(file, ns=(1, 1))
        assert again.known(file) is None

    def test_a_torn_line_and_a_moved_folder_lose_nothing_else(self, tmp_path: Path) -> None:
        old = tmp_path / "old"
        old.mkdir()
        (old / "x").write_bytes(b"x")
        HashCache(old / "hashes", old).sha256(old / "x")
        with (old / "hashes").open("ab") as file:
            file.write(b'["y",1,')
        new = old.rename(tmp_path / "new")
        assert HashCache(new / "hashes", new).known(new / "x") == hashlib.sha256(b"x").hexdigest()

    def test_a_fetch_fills_it(self, repo: Repo, tmp_path: Path) -> None:
        carry(open_model(f"ms:{MODEL}", workspace=tmp_path), tmp_path / "weights")
        lines = (tmp_path / "weights/.bundler/hashes.jsonl").read_text().splitlines()
        assert "tiny-glm4-moe/config.json" in {json.loads(line)[0] for line in lines}
        config = tmp_path / "weights/tiny-glm4-moe/config.json"
        assert (
            hash_cache(tmp_path / "weights").known(config) == hashlib.sha256(config.read_bytes()).hexdigest()
        )
