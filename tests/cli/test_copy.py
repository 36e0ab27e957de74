"""`bundler copy`: a bundle onto disks of every size, read back; small file systems are real ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bundler.archive.bundle import Bundle
from bundler.archive.writer import write_bundle
from bundler.common.progress import SILENT
from bundler.errors import DamagedError, DestinationError, MissingVolumeError, PartialError, PreflightError
from bundler.work import copy
from bundler.work.copy import CopyOptions, copy_bundle
from tests.archive.make import files_of, flip, make_tree, recipe_of, snapshot
from tests.cli.conftest import PROJECT, run_bundler
from tests.runtime.mounts import needs_mounts, run_mounted

MIB = 2**20


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Return a bundle of six volumes of about 1 MB."""
    tree = make_tree(tmp_path / "tree", [0, *[1_000_000] * 5, 512, *[700_000] * 4])
    write_bundle(recipe_of(tree, volume_size=MIB, parity=1), [tmp_path / "from" / "little"])
    return tmp_path / "from" / "little"


@pytest.fixture
def disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return two folders for disks; what is remembered of disks is the test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    found = [tmp_path / "disk1", tmp_path / "disk2"]
    for one in found:
        one.mkdir()
    return found


def run(bundle: Path, disks: list[Path], **options: object) -> list[copy.Disk]:
    with Bundle.open([bundle]) as opened:
        return copy_bundle(opened, disks, CopyOptions(reporter=SILENT, **options))  # type: ignore[arg-type]


def test_a_whole_one_on_each(bundle: Path, disks: list[Path]) -> None:
    run(bundle, disks, each=True)
    for disk in disks:
        assert files_of(disk / "little") == files_of(bundle)
        subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=disk / "little", check=True)
        assert "On this disk: " in (disk / "little.contents.txt").read_text()
    shutil.rmtree(bundle)
    assert run_bundler("verify", disks[0] / "little").returncode == 0


def test_what_is_there_is_not_written_again(bundle: Path, disks: list[Path]) -> None:
    """Killed in the middle, the same command goes on; what was being written isn't believed."""

    class StoppedError(Exception):
        pass

    class Stopping:
        def __init__(self) -> None:
            self.left = 3 * MIB

        def advance(self, amount: int) -> None:
            self.left -= amount
            if self.left < 0:
                raise StoppedError

        def say(self, line: str) -> None:
            pass

    class Reporter:
        def phase(self, *_: object, **__: object) -> Reporter:
            return self

        def __enter__(self) -> Stopping:
            return Stopping()

        def __exit__(self, *_: object) -> None:
            pass

        def say(self, line: str) -> None:
            pass

    with Bundle.open([bundle]) as opened, pytest.raises(StoppedError):
        copy_bundle(opened, disks[:1], CopyOptions(reporter=Reporter()))  # type: ignore[arg-type]
    there = {path: path.stat().st_mtime_ns for path in (disks[0] / "little").glob("data-*.zst")}
    assert there and not (disks[0] / "little" / "SHA256SUMS").exists()
    (partial,) = (disks[0] / "little").glob("*.partial")
    partial.write_bytes(b"other bytes")
    run(bundle, disks[:1])
    assert files_of(disks[0] / "little") == files_of(bundle)
    assert {path: path.stat().st_mtime_ns for path in there} == there


def test_a_disk_that_lies_is_found_out(
    bundle: Path, disks: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The medium is played: what was synced comes back with one bit turned over."""
    whole = os.posix_fadvise

    def lying(file: int, *words: int) -> None:
        whole(file, *words)
        path = Path(f"/proc/self/fd/{file}").readlink()
        if path.name == "data-00002.tar.zst.partial":
            flip(path, 4711)

    monkeypatch.setattr(os, "posix_fadvise", lying)
    with pytest.raises(DamagedError, match=r"gave back other bytes of data-00002\.tar\.zst"):
        run(bundle, disks)
    assert not list((disks[0] / "little").glob("data-00002*"))


def test_a_damaged_source_is_not_carried_on(bundle: Path, disks: list[Path]) -> None:
    flip(bundle / "data-00003.tar.zst", 99)
    with pytest.raises(DamagedError, match=r"data-00003\.tar\.zst is not what SHA256SUMS says"):
        run(bundle, disks)
    assert not list((disks[0] / "little").glob("data-00003*"))
    (bundle / "data-00003.tar.zst").unlink()
    with pytest.raises(MissingVolumeError) as refused:
        run(bundle, disks)
    assert refused.value.findings == ("data-00003.tar.zst",)


def test_another_bundle_of_the_name_stays(bundle: Path, disks: list[Path], tmp_path: Path) -> None:
    other = make_tree(tmp_path / "other", [5])
    write_bundle(recipe_of(other), [disks[1] / "little"])
    before = files_of(disks[1] / "little")
    with pytest.raises(DestinationError, match="another bundle called little"):
        run(bundle, disks)
    assert files_of(disks[1] / "little") == before and not list(disks[0].iterdir())


def test_words(bundle: Path, disks: list[Path]) -> None:
    assert run_bundler("copy").returncode == 2
    alone = run_bundler("copy", bundle)
    assert alone.returncode == 2 and "no disk was named" in alone.stderr
    done = run_bundler("copy", bundle.parent, *disks)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("copying little from ") and f"{disks[0]}/little: " in done.stdout


MOUNTS = """
for number in 1 2 3; do
  mkdir -p {top}/disk$number
  mount -t tmpfs -o size={size} tmpfs {top}/disk$number
done
"""


def in_small_disks(top: Path, size: str, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script of sh where disk1, disk2 and disk3 are file systems of a size."""
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT), "XDG_STATE_HOME": str(top / "state")}
    bundler = f'bundler() {{ {sys.executable} -m bundler "$@"; }}\n'
    return run_mounted(
        MOUNTS.format(top=top, size=size), ["sh", "-euc", bundler + script], env=variables, cwd=top
    )


@needs_mounts
def test_it_is_spread_in_order(bundle: Path, tmp_path: Path) -> None:
    done = in_small_disks(
        tmp_path,
        "5m",
        "bundler copy from disk1 disk2 disk3\nls disk?/little/data-* disk1/*.txt\n"
        "bundler verify disk1 disk2 disk3\nbundler unpack --no-install disk1 disk2 disk3 to",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    held = [line.split("/") for line in done.stdout.splitlines() if line.endswith(".tar.zst")]
    assert [name for _, _, name in held] == sorted(path.name for path in bundle.glob("data-*"))
    assert len({disk for disk, *_ in held}) > 1
    assert snapshot(tmp_path / "to") == snapshot(tmp_path / "tree")


@needs_mounts
def test_disks_that_are_too_small_are_refused_before_a_write(bundle: Path, tmp_path: Path) -> None:
    done = in_small_disks(tmp_path, "3m", "bundler copy from disk1 disk2 || echo code $?; find disk1 disk2")
    assert "code 8" in done.stdout and "find no room" in done.stderr and "--in-turn" in done.stderr
    assert done.stdout.splitlines()[-2:] == ["disk1", "disk2"]


@needs_mounts
def test_disks_in_turn_in_one_drive(bundle: Path, tmp_path: Path) -> None:
    """Disks are changed at one place: a bind mount stands for the drive. The last command finds all there."""
    turn = (
        "mkdir -p drive\n"
        "for number in 1 2 3; do\n"
        "  mount --bind disk$number drive\n"
        "  bundler copy from drive --in-turn && break || echo code $?\n"
        "  umount drive\n"
        "done\n"
        "bundler verify disk1 disk2\n"
        "ls state/bundler"
    )
    done = in_small_disks(tmp_path, "5m", turn)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "code 7" in done.stdout and "going on: " in done.stderr
    assert "put the next disk in its place" in done.stderr
    assert "sound" in done.stdout
    assert not done.stdout.endswith(".json\n"), "nothing is remembered any more"


def test_the_same_disk_is_asked_for_again(
    bundle: Path, disks: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever presses Enter without having changed the disk is told, and asked once more."""
    room = {"disk1": 4 * MIB}
    real = shutil.disk_usage

    def usage(path: Path) -> object:
        taken = sum(one.stat().st_size for one in Path(path).rglob("*") if one.is_file())
        return real(path)._replace(free=max(0, room["disk1"] - taken))

    monkeypatch.setattr(copy.shutil, "disk_usage", usage)
    asked: list[int] = []

    def ask(root: Path, waiting: int) -> bool:
        asked.append(waiting)
        if len(asked) == 2:
            root.rename(root.with_name(f"full{len(asked)}"))
            root.mkdir()
        return len(asked) < 4

    with pytest.raises(PartialError):
        run(bundle, disks[:1], in_turn=True, ask=ask)
    assert asked[0] == asked[1] > asked[2]
    (state,) = (disks[0].parent / "state" / "bundler").iterdir()
    remembered = json.loads(state.read_text())
    assert {path.name for path in disks[0].parent.glob("full2/little/data-*")} <= set(remembered)


def test_fat_takes_no_large_file(bundle: Path, disks: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copy, "file_system", lambda _: "vfat")
    monkeypatch.setattr(copy, "FAT_FILE", 500_000)
    with pytest.raises(PreflightError, match="takes no file of 4 GiB"):
        run(bundle, disks)
