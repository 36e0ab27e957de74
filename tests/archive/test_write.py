"""Writing: what goes wrong on the way, what is kept, and what is never overwritten."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from bundler.archive import media, unpack_state, volume_writer
from bundler.archive.bundle import Bundle, find_bundle
from bundler.archive.member import FileSource, Member
from bundler.archive.verify import verify_bundle
from bundler.archive.writer import write_bundle
from bundler.errors import (
    DamagedError,
    DestinationError,
    InputError,
    PreflightError,
    UnknownNameError,
    UsageError,
)
from tests.archive.make import BytesSource, files_of, make_tree, recipe_of, snapshot, unpack

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "tree")


@pytest.fixture
def whole(tree: Path, tmp_path: Path) -> dict[str, bytes]:
    write_bundle(recipe_of(tree), [tmp_path / "whole"])
    return files_of(tmp_path / "whole")


def volumes_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("data-*"))


@pytest.mark.parametrize("threads", [1, 7])
def test_an_altered_file_is_named_and_mended(
    tree: Path, tmp_path: Path, whole: dict[str, bytes], threads: int
) -> None:
    """The archive is cut back to before it; with the right file the same command goes on."""
    recipe = recipe_of(tree)
    victim = tree / "weights/m0/file-6"
    good, times = victim.read_bytes(), victim.stat()
    victim.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    os.utime(victim, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(DamagedError, match="file-6 is not what its publisher promised") as raised:
        write_bundle(recipe, [tmp_path / "b"], threads=threads)
    # Its size and time are right: without --rehash a hub's file would be taken for whole again.
    assert "--rehash" in (raised.value.hint or "")
    victim.write_bytes(good)
    os.utime(victim, ns=(times.st_atime_ns, times.st_mtime_ns))
    opened = []

    class Watched(FileSource):
        def open(self) -> Any:
            opened.append(self.path.name)
            return super().open()

    members = [replace(m, source=Watched(m.source.path)) if m.source else m for m in recipe.members]  # type: ignore[attr-defined]
    write_bundle(replace(recipe, members=members), [tmp_path / "b"], threads=threads)
    assert files_of(tmp_path / "b") == whole
    assert "file-6" in opened
    assert "file-3" not in opened, "what came before is kept"


@pytest.mark.parametrize("change", ["shrink", "grow", "vanish"])
def test_a_file_that_changes_while_it_is_packed(tree: Path, tmp_path: Path, change: str) -> None:
    """Sizes were promised when the stream was laid out."""
    recipe = recipe_of(tree)
    victim = tree / "weights/m0/file-6"
    if change == "vanish":
        victim.unlink()
    else:
        victim.write_bytes(victim.read_bytes()[:-5] if change == "shrink" else victim.read_bytes() + b"more")
    with pytest.raises(InputError if change == "vanish" else DamagedError, match="file-6"):
        write_bundle(recipe, [tmp_path / "b"])
    assert threading.active_count() == 1, "no thread outlives an error"


def test_a_digest_that_nobody_promised_is_made(tree: Path, tmp_path: Path, whole: dict[str, bytes]) -> None:
    """The manifest is the same as where the publisher gave it."""
    recipe = recipe_of(tree)
    bare = [replace(member, sha256=None) for member in recipe.members]
    write_bundle(replace(recipe, members=bare), [tmp_path / "b"])
    assert files_of(tmp_path / "b") == whole


def test_an_unfinished_bundle_of_another_recipe_is_started_over(
    tree: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    """Nothing of the first one is left."""
    other = make_tree(tmp_path / "other", [300_000, 200_000])
    recipe = recipe_of(other)
    path = other / "weights/m1/file-1"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedError):
        write_bundle(recipe, [tmp_path / "b"])
    assert volumes_in(tmp_path / "b")
    recipe = recipe_of(tree)
    write_bundle(recipe, [tmp_path / "b"])
    assert files_of(tmp_path / "b") == whole


def test_a_finished_bundle_is_kept(tree: Path, tmp_path: Path, whole: dict[str, bytes]) -> None:
    """The same recipe finds it done; another one needs to be told; a foreign folder is never touched."""
    before = (tmp_path / "whole/data-00001.tar.zst").stat()
    manifest = write_bundle(recipe_of(tree), [tmp_path / "whole"])
    assert manifest.name == "little"
    assert (tmp_path / "whole/data-00001.tar.zst").stat() == before
    with pytest.raises(DestinationError, match="finished bundle of other content"):
        write_bundle(recipe_of(tree, level=3), [tmp_path / "whole"])
    assert files_of(tmp_path / "whole") == whole
    write_bundle(recipe_of(tree, level=0), [tmp_path / "whole"], replace=True)
    with Bundle.open([tmp_path / "whole"]) as bundle:
        verify_bundle(bundle)
    with pytest.raises(DestinationError, match="holds other things"):
        write_bundle(recipe_of(tree), [tree])


def test_disks_are_filled_in_turn(
    tree: Path, tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes what it has room for; what is small is on each; together they are the bundle."""
    room = {"disk1": 200_000, "disk2": 200_000, "disk3": 10**9}

    def free(self: media.Media, turn: int) -> int:
        folder = self.folders[turn]
        return room[folder.name] - sum(path.stat().st_size for path in folder.iterdir())

    monkeypatch.setattr(media.Media, "_free", free)
    monkeypatch.setattr(media, "_SPARE", 0)
    disks = [tmp_path / name for name in room]
    recipe = recipe_of(tree)
    write_bundle(recipe, disks)
    spread = [volumes_in(disk) for disk in disks]
    assert all(spread)
    in_turn = [name for names in spread for name in names]
    assert in_turn == sorted(in_turn) == sorted(name for name in whole if name.startswith("data-"))
    for disk, names in zip(disks, spread, strict=True):
        text = (disk / "README.txt").read_text()
        assert names[0] in text
        assert (disk / "manifest.json").read_bytes() == whole["manifest.json"]
        assert (disk / "install.sh").stat().st_mode & 0o100
        assert not list(disk.glob(".pack*"))
    unpack(disks, tmp_path / "out")
    assert snapshot(tmp_path / "out") == snapshot(tree)


def test_a_full_disk_keeps_what_is_written(
    tree: Path, tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says so; the same command goes on, on another disk too."""
    real, budget = os.write, [120_000]

    def write(file: int, data: Any) -> int:
        if len(data) > 1000 and budget[0] < len(data):
            raise OSError(errno.ENOSPC, "No space left on device")
        budget[0] -= len(data) if len(data) > 1000 else 0
        return real(file, data)

    monkeypatch.setattr(volume_writer.os, "write", write)
    with pytest.raises(PreflightError, match="no space left"):
        write_bundle(recipe_of(tree), [tmp_path / "b"])
    assert volumes_in(tmp_path / "b")
    monkeypatch.setattr(volume_writer.os, "write", real)
    write_bundle(recipe_of(tree), [tmp_path / "b"])
    assert files_of(tmp_path / "b") == whole
    budget[0] = 120_000
    monkeypatch.setattr(volume_writer.os, "write", write)
    monkeypatch.setattr(media.Media, "_free", lambda self, turn: 0 if turn == 0 else 10**9)
    monkeypatch.setattr(media.Media, "place", lambda self, most: self.folders[self._turn])

    def settled(self: media.Media, turn: int) -> int:
        budget[0] = 10**9 if turn else budget[0]
        return 0 if turn == 0 else 10**9

    monkeypatch.setattr(media.Media, "_free", settled)
    write_bundle(recipe_of(tree), [tmp_path / "c1", tmp_path / "c2"])
    assert volumes_in(tmp_path / "c1")
    assert volumes_in(tmp_path / "c2")
    unpack([tmp_path / "c1", tmp_path / "c2"], tmp_path / "out")
    assert snapshot(tmp_path / "out") == snapshot(tree)


class Fickle:
    """A source whose content changes and whose fingerprint doesn't."""

    fingerprint = "the same"

    def __init__(self, data: bytes) -> None:
        self.data = data

    def open(self) -> Any:
        return io.BytesIO(self.data)


@pytest.mark.parametrize("harm", ["truncate", "flip", "vanish", "tear the journal", "lengthen"])
def test_what_was_lost_after_it_was_journalled_is_written_again(
    tree: Path, tmp_path: Path, harm: str
) -> None:
    """A disk may lie about what is durable: torn, damaged and vanished volumes are cut away."""
    recipe, source, folder = recipe_of(tree), Fickle(b"bad"), tmp_path / "b"
    last = Member("weights/zz", "file", 3, sha256=hashlib.sha256(b"yes").hexdigest(), source=source)
    recipe = replace(recipe, members=[*recipe.members, last])
    with pytest.raises(DamagedError):
        write_bundle(recipe, [folder])
    victim = folder / volumes_in(folder)[1 if harm == "vanish" else -1]
    data = victim.read_bytes()
    if harm == "truncate":
        victim.write_bytes(data[: len(data) // 2])
    elif harm == "flip":
        victim.write_bytes(bytes([data[0] ^ 4]) + data[1:])
    elif harm == "vanish":
        victim.unlink()
    elif harm == "lengthen":
        victim.write_bytes(data + b"a torn frame")
    else:
        journal = folder / ".pack-journal"
        journal.write_bytes(journal.read_bytes()[:-7])
    source.data = b"yes"
    write_bundle(recipe, [folder])
    write_bundle(recipe, [tmp_path / "new"])
    assert files_of(folder) == files_of(tmp_path / "new")


def test_two_packs_at_once(tree: Path, tmp_path: Path) -> None:
    """The second is told that the first is at work."""
    from bundler.archive.journal import Journal
    from bundler.archive.pack_state import PackRecord

    (tmp_path / "b").mkdir()
    journal = Journal(tmp_path / "b/.pack-journal", PackRecord)
    with pytest.raises(DestinationError, match="another bundler is at work"):
        write_bundle(recipe_of(tree), [tmp_path / "b"])
    journal.close()


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"level": 23}, UsageError),
        ({"volume_size": 100}, UsageError),
        ({"frame_size": 100}, UsageError),
        ({"companions": {"data-00001.tar.zst": b""}}, InputError),
        ({"companions": {"../x": b""}}, InputError),
        ({"members": [Member("a", "file", 1)]}, InputError),
        ({"members": [Member("../a", "file", 1, source=BytesSource(b"a"))]}, InputError),
        ({"members": [Member("bin/a", "file", 1, source=BytesSource(b"a"))]}, InputError),
        ({"members": [Member("l", "link", target="/etc")]}, InputError),
        ({"members": [Member("a", "file", 1, source=BytesSource(b"a"))] * 2}, InputError),
    ],
)
def test_what_cant_be_packed(
    tree: Path, tmp_path: Path, fields: dict[str, Any], kind: type[Exception]
) -> None:
    """Refused before the first byte."""
    with pytest.raises(kind):
        write_bundle(replace(recipe_of(tree), **fields), [tmp_path / "b"])
    assert not volumes_in(tmp_path / "b")


def test_finding_the_bundle_that_is_meant(
    tree: Path, tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder itself, one directly below, then ``BUNDLER_BUNDLE``; several are named."""
    bundle = tmp_path / "whole"
    assert find_bundle(bundle) == bundle
    assert find_bundle(tmp_path) == bundle
    monkeypatch.chdir(tmp_path)
    assert find_bundle() == bundle
    monkeypatch.chdir(tree)
    with pytest.raises(UnknownNameError, match="no bundle here"):
        find_bundle()
    monkeypatch.setenv("BUNDLER_BUNDLE", str(bundle))
    assert find_bundle() == bundle
    shutil.copytree(bundle, tmp_path / "copy")
    with pytest.raises(UnknownNameError, match="several bundles are here: copy, whole"):
        find_bundle(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert find_bundle() == bundle, "the variable says which"
    monkeypatch.chdir(tmp_path / "copy")
    assert find_bundle() == bundle, "against what lies about, too"
    assert find_bundle(tmp_path / "copy") == tmp_path / "copy", "and what is named against the variable"


class TestAddingToAnInstallation:
    """A destination that holds something already."""

    def test_a_second_bundle_adds_its_files(
        self, tree: Path, tmp_path: Path, whole: dict[str, bytes]
    ) -> None:
        """Files of the same content are kept unread by the journal; others are added."""
        unpack(tmp_path / "whole", tmp_path / "out")
        (tree / "weights/new").write_bytes(b"new")
        write_bundle(recipe_of(tree), [tmp_path / "second"])
        unpacked: Any = unpack(tmp_path / "second", tmp_path / "out")
        assert unpacked.kept == 9
        assert snapshot(tmp_path / "out") == snapshot(tree)
        assert len(list((tmp_path / "out/.bundler/bundles").iterdir())) == 2

    def test_other_content_is_never_overwritten(
        self, tree: Path, tmp_path: Path, whole: dict[str, bytes]
    ) -> None:
        """The message names the file; nothing of the bundle is written."""
        unpack(tmp_path / "whole", tmp_path / "out")
        before = snapshot(tmp_path / "out")
        (tree / "weights/m1/file-1").write_bytes(b"y")
        (tree / "weights/new").write_bytes(b"new")
        write_bundle(recipe_of(tree), [tmp_path / "second"])
        with pytest.raises(DestinationError, match="weights/m1/file-1"):
            unpack(tmp_path / "second", tmp_path / "out")
        assert snapshot(tmp_path / "out") == before

    @pytest.mark.parametrize("harm", ["delete", "alter", "shorten"])
    def test_unpacking_again_mends_files(
        self, tree: Path, tmp_path: Path, whole: dict[str, bytes], harm: str
    ) -> None:
        """What was unpacked here and isn't what it was is written anew, and nothing else."""
        unpack(tmp_path / "whole", tmp_path / "out")
        victim = tmp_path / "out/weights/m0/file-6"
        data = victim.read_bytes()
        victim.unlink()
        if harm != "delete":
            victim.write_bytes(data[:-1] + (b"?" if harm == "alter" else b""))
        unpacked: Any = unpack(tmp_path / "whole", tmp_path / "out")
        assert snapshot(tmp_path / "out") == snapshot(tree)
        assert unpacked.kept == 8
        assert hashlib.sha256(victim.read_bytes()).hexdigest() == hashlib.sha256(data).hexdigest()

    def test_another_unfinished_unpack_is_not_lost(
        self, tree: Path, tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The message says how to finish it or give it up."""
        monkeypatch.setattr(unpack_state.UnpackState, "place", _no_space)
        with pytest.raises(PreflightError, match="not enough space"):
            unpack(tmp_path / "whole", tmp_path / "out")
        monkeypatch.undo()
        write_bundle(recipe_of(tree, level=3), [tmp_path / "second"])
        with pytest.raises(DestinationError, match="unfinished here"):
            unpack(tmp_path / "second", tmp_path / "out")
        unpack(tmp_path / "whole", tmp_path / "out")
        unpack(tmp_path / "second", tmp_path / "out")
        assert snapshot(tmp_path / "out") == snapshot(tree)


def _no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_destination_without_room_is_refused_before_the_first_write(
    tree: Path, tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what is still to be written, not by what the bundle holds."""
    from bundler.archive.target import Target

    monkeypatch.setattr(Target, "free", lambda self: 1000)
    with pytest.raises(PreflightError, match=r"are needed, 1\.0 kB are free"):
        unpack(tmp_path / "whole", tmp_path / "out")
    assert not snapshot(tmp_path / "out")
    monkeypatch.undo()
    unpack(tmp_path / "whole", tmp_path / "out")
    monkeypatch.setattr(Target, "free", lambda self: 0)
    unpack(tmp_path / "whole", tmp_path / "out")


def test_a_replaced_bundle_leaves_nothing_of_the_old_one(tree: Path, tmp_path: Path) -> None:
    """Companions of the old bundle that the new one hasn't go too; a kept one isn't changed at all."""
    recipe = recipe_of(tree)
    write_bundle(replace(recipe, companions={"old.txt": b"old"}), [tmp_path / "b"])
    before = files_of(tmp_path / "b")
    with pytest.raises(DestinationError):
        write_bundle(recipe, [tmp_path / "b"])
    assert files_of(tmp_path / "b") == before
    write_bundle(recipe, [tmp_path / "b"], replace=True)
    with Bundle.open([tmp_path / "b"]) as bundle:
        verify_bundle(bundle)
    assert not (tmp_path / "b/old.txt").exists()


def test_volumes_too_small_for_their_bundle_are_refused_first(tree: Path, tmp_path: Path) -> None:
    """Nobody would read the sums of so many; nothing of it is written."""
    huge = Member("weights/a", "file", 10 * 10**12, source=BytesSource(b""))
    recipe = replace(recipe_of(tree), members=[huge], volume_size=20_000_000, frame_size=2**23)
    with pytest.raises(UsageError, match="too small for 10") as caught:
        write_bundle(recipe, [tmp_path / "b"])
    assert caught.value.hint == "--volume-size 239MB or larger"
    assert not (tmp_path / "b").exists()
