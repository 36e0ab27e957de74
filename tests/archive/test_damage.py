"""Damage anywhere is found, named, and never written under a file's own name."""

from __future__ import annotations

import errno
import os
import random
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from click.testing import CliRunner

from bundler.archive.bundle import Bundle, find_bundle
from bundler.archive.verify import verify_bundle
from bundler.archive.writer import write_bundle
from bundler.cli.main import bundler_command
from bundler.errors import BundlerError, DamagedError, InputError, MissingVolumeError, PartialError
from bundler.installation import find_installation, waiting_of
from bundler.work.subjects import find_subjects
from tests.archive.make import flip, make_tree, recipe_of, snapshot, unpack


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    base = tmp_path_factory.mktemp("damage")
    tree = make_tree(base / "tree")
    manifest = write_bundle(recipe_of(tree), [base / "bundle"])
    assert len(manifest.volumes) > 3
    return tree, base / "bundle"


@pytest.fixture
def bundle(made: tuple[Path, Path], tmp_path: Path) -> Path:
    return shutil.copytree(made[1], tmp_path / "bundle")


def verify(bundle: Path, *, deep: bool = False) -> None:
    with Bundle.open([bundle]) as opened:
        verify_bundle(opened, deep=deep)


@pytest.mark.parametrize("seed", range(24))
def test_a_flipped_bit_anywhere(made: tuple[Path, Path], bundle: Path, tmp_path: Path, seed: int) -> None:
    """Verify names the file; unpack writes no wrong byte, says what to copy, and then needs only that."""
    tree, sound = made
    chance = random.Random(seed)
    names = sorted(path.name for path in bundle.iterdir() if path.name != "pack-log.json")
    name = names[seed % len(names)]
    flip(bundle / name, chance.randrange((bundle / name).stat().st_size), chance.randrange(8))
    with pytest.raises((DamagedError, InputError)) as found:
        verify(bundle)
    assert name in str(found.value) or name == "SHA256SUMS"
    if not name.startswith("data-"):
        return
    whole = snapshot(tree)
    with pytest.raises(DamagedError) as found:
        unpack(bundle, tmp_path / "out")
    assert f"copy {name} again" in str(found.value)
    for path, facts in snapshot(tmp_path / "out").items():
        assert facts == whole[path]
    shutil.copy(sound / name, bundle / name)
    unpacked = unpack(bundle, tmp_path / "out")
    assert snapshot(tmp_path / "out") == whole
    assert unpacked.written < sum(len(facts) and 20_000 for facts in whole.values()), "only what was missing"


def test_missing_short_and_swapped_volumes_are_named(bundle: Path, tmp_path: Path) -> None:
    """All of them at once, before anything is made."""
    (bundle / "data-00001.tar.zst").unlink()
    second = bundle / "data-00002.tar.zst"
    second.write_bytes(second.read_bytes()[:-1])
    third, fourth = bundle / "data-00003.tar.zst", bundle / "data-00004.tar.zst"
    stolen = fourth.read_bytes()[: third.stat().st_size].ljust(third.stat().st_size, b"\0")
    third.write_bytes(stolen)
    with pytest.raises(MissingVolumeError) as found:
        unpack(bundle, tmp_path / "out")
    text = str(found.value)
    assert "data-00001.tar.zst is missing" in text
    assert "data-00002.tar.zst is short" in text
    assert "data-00003.tar.zst is swapped: it holds data-00004.tar.zst" in text
    assert not (tmp_path / "out").exists()
    with pytest.raises(MissingVolumeError):
        verify(bundle)


def test_a_damaged_first_frame_is_no_swapped_volume(bundle: Path, tmp_path: Path) -> None:
    """The rest of the volume is unpacked all the same."""
    flip(bundle / "data-00002.tar.zst", 100)
    with pytest.raises(DamagedError, match="1 damaged frame"):
        unpack(bundle, tmp_path / "out")


def test_another_bundles_volume_is_a_swapped_one(bundle: Path, tmp_path: Path) -> None:
    """Known by its frames, whatever its size."""
    volume = bundle / "data-00002.tar.zst"
    volume.write_bytes(random.Random(0).randbytes(volume.stat().st_size))
    with pytest.raises(MissingVolumeError, match="another bundle's bytes"):
        unpack(bundle, tmp_path / "out")


def test_what_a_dying_disk_doesnt_give_is_no_swapped_volume(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is called what it is, and the rest is unpacked."""
    preadv, dying = os.preadv, (bundle / "data-00003.tar.zst").stat().st_ino

    def fail(file: int, buffers: list[memoryview], offset: int) -> int:
        if os.fstat(file).st_ino == dying:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return preadv(file, buffers, offset)

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(DamagedError, match=r"damaged frame\(s\) in data-00003") as found:
        unpack(bundle, tmp_path / "out")
    assert "may be dying" in found.value.findings[0]
    monkeypatch.undo()
    unpack(bundle, tmp_path / "out")


def test_disks_one_after_the_other(made: tuple[Path, Path], tmp_path: Path) -> None:
    """``--partial`` writes what is here and names the next disk; the last one completes it."""
    tree, sound = made
    disks = []
    volumes = sorted(sound.glob("data-*"))
    for number in range(3):
        disk = shutil.copytree(sound, tmp_path / f"disk{number}", ignore=shutil.ignore_patterns("data-*"))
        for volume in volumes[number::3]:
            shutil.copy(volume, disk)
        disks.append(disk)
    left = [volume.name for volume in volumes]
    for number, disk in enumerate(disks[:2]):
        with pytest.raises(PartialError, match=r"insert the disk with data-") as partial:
            unpack(disk, tmp_path / "out", partial=True)
        left = [name for name in left if not (disk / name).exists()]
        assert list(partial.value.findings) == left, f"of disk {number} nothing is needed any more"
        assert str(partial.value).splitlines()[-1].startswith("  next:  insert")
        with pytest.raises(PartialError) as unfinished:
            find_subjects([tmp_path / "out"])
        assert list(unfinished.value.findings) == left
    unpack(disks[2], tmp_path / "out", partial=True)
    assert snapshot(tmp_path / "out") == snapshot(tree)
    assert waiting_of(tmp_path / "out") is None
    unpack(disks, tmp_path / "together")
    assert snapshot(tmp_path / "together") == snapshot(tree)


def test_verify_first_writes_nothing_of_a_damaged_bundle(bundle: Path, tmp_path: Path) -> None:
    """Reading twice is for those who want all or nothing."""
    flip(bundle / "data-00003.tar.zst", 5000)
    with pytest.raises(DamagedError):
        unpack(bundle, tmp_path / "out", verify_first=True)
    assert not (tmp_path / "out").exists()


def test_a_manifest_that_isnt_the_sums_one_is_not_believed(bundle: Path) -> None:
    """Nor is a bundle whose sums are gone."""
    path = bundle / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"name":"little"', b'"name":"belittle"'))
    with pytest.raises(DamagedError, match="not the one that SHA256SUMS names"):
        Bundle.open([bundle])
    (bundle / "SHA256SUMS").unlink()
    with pytest.raises(InputError, match="no SHA256SUMS"):
        Bundle.open([bundle])


def test_headers_that_lie_are_found(made: tuple[Path, Path], tmp_path: Path) -> None:
    """A stream whose header says another name than the manifest passes all digests, and is refused."""
    import hashlib

    from bundler import manifest as manifests
    from bundler.archive import frames, sums

    bundle = shutil.copytree(made[1], tmp_path / "bundle")
    manifest = manifests.read(bundle / "manifest.json")
    volume = bundle / manifest.volumes[0].name
    data = volume.read_bytes()
    content = bytearray(manifest.frames.raw[0])
    frames.decompress(data[: manifest.frames.stored[0]], memoryview(content))
    content[0:7] = b"elsewhe"
    frame = frames.store(content)
    data = frame + data[manifest.frames.stored[0] :]
    columns, first = manifest.frames, manifest.volumes[0]
    index = msgspec.structs.replace(
        columns,
        stored=(len(frame), *columns.stored[1:]),
        blake3=(frames.digest(frame), *columns.blake3[1:]),
    )
    first = msgspec.structs.replace(first, size=len(data), sha256=hashlib.sha256(data).hexdigest())
    forged = msgspec.structs.replace(manifest, frames=index, volumes=(first, *manifest.volumes[1:]))
    listed = sums.parse((bundle / "SHA256SUMS").read_bytes(), bundle)
    listed |= {first.name: first.sha256}
    listed["manifest.json"] = hashlib.sha256(manifests.encode(forged)).hexdigest()
    volume.write_bytes(data)
    (bundle / "manifest.json").write_bytes(manifests.encode(forged))
    (bundle / "SHA256SUMS").write_bytes(sums.render(listed))
    verify(bundle)  # the disk gave back what was packed
    with pytest.raises(DamagedError, match="tar stream differs from the manifest"):
        verify(bundle, deep=True)
    with pytest.raises(DamagedError, match="damaged frame") as caught:
        unpack(bundle, tmp_path / "out")
    assert "tar stream differs from the manifest at weights" in caught.value.findings[0]
    assert not (tmp_path / "out/weights/m0/file-3").exists(), "nothing of that frame was written"


def test_strangers_beside_the_volumes_are_named(bundle: Path) -> None:
    """What the sums don't vouch for is no damage: nothing reads it."""
    (bundle / "extra.sh").write_text("#!/bin/sh\n")
    (bundle / "._data-00001.tar.zst").write_bytes(b"\0")
    (bundle / "folder").mkdir()
    (bundle / "lost+found").mkdir()
    (bundle / "broken").symlink_to("nowhere")
    with Bundle.open([bundle]) as opened:
        strangers = verify_bundle(opened).strangers
    names = ("._data-00001.tar.zst", "broken", "extra.sh", "folder")
    assert strangers == tuple(f"{name} is not listed in SHA256SUMS ({bundle})" for name in names)
    done = CliRunner().invoke(bundler_command, ["verify", str(bundle)])
    assert done.exit_code == 0
    assert "warning: extra.sh is not listed" in done.stdout


def test_a_folder_that_can_not_be_read_hides_nothing(made: tuple[Path, Path]) -> None:
    """``lost+found`` beside the bundle, seen by another user than root; an installation is found so, too."""
    with TemporaryDirectory() as name:
        disk = Path(name)
        shutil.copytree(made[1], disk / "bundle")
        (disk / "installed/.bundler").mkdir(parents=True)
        (disk / "installed/.bundler/receipt.json").write_text("{}")
        (disk / "lost+found").mkdir(mode=0)
        disk.chmod(0o755)
        before = os.geteuid()
        try:
            os.seteuid(before or 65534)
            assert find_bundle(disk) == disk / "bundle"
            assert find_installation(disk).root == disk / "installed"
        finally:
            os.seteuid(before)


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_an_unreadable_medium_is_damage(made: tuple[Path, Path], tmp_path: Path, threads: int) -> None:
    """A read error spoils its frame only."""
    tree, sound = made

    class BadSector:
        name = where = "data-00002.tar.zst"

        def __init__(self, inner: object) -> None:
            self.inner = inner

        def size(self) -> int:
            return self.inner.size()  # type: ignore[attr-defined,no-any-return]

        def read_at(self, offset: int, buffer: memoryview) -> None:
            if offset <= 30_000 < offset + len(buffer):
                raise DamagedError("data-00002.tar.zst can't be read at byte 30000: Input/output error")
            self.inner.read_at(offset, buffer)  # type: ignore[attr-defined]

        def close(self) -> None:
            self.inner.close()  # type: ignore[attr-defined]

    from bundler.archive.unpack import unpack_bundle

    with Bundle.open([sound]) as bundle:
        bundle.volumes["data-00002.tar.zst"] = BadSector(bundle.volumes["data-00002.tar.zst"])
        with pytest.raises(BundlerError, match="Input/output error"):
            unpack_bundle(bundle, tmp_path / "out", threads=threads)
    unpack(sound, tmp_path / "out")
    assert snapshot(tmp_path / "out") == snapshot(tree)
