"""The format as others see it: stock tools, and a reader written from the specification."""

from __future__ import annotations

import shutil
import struct
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest
import zstandard

from bundler.archive import frames, tar
from bundler.archive.writer import write_bundle
from bundler.errors import DamagedError
from tests.archive.make import content, files_of, make_tree, recipe_of, snapshot, unpack
from tests.archive.reference_reader import read_bundle

if TYPE_CHECKING:
    from pathlib import Path

stock = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("zstd", "tar", "sha256sum")),
    reason="needs Debian's zstd, tar and coreutils",
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = make_tree(tmp_path / "tree")
    long = folder / "weights" / ("folder-" + "x" * 120) / ("y" * 200)
    long.mkdir(parents=True)
    (long / "größe 模型.bin").write_bytes(content(1000, 7))
    (long / ("z" * 100)).symlink_to("größe 模型.bin")
    (folder / "weights/far").symlink_to("/".join(("folder-" + "x" * 120, "y" * 200, "größe 模型.bin")))
    return folder


def sh(command: str, folder: Path) -> str:
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, "stock tools warn of nothing"
    return done.stdout


@stock
def test_stock_tools_give_the_same_tree_as_bundler(tree: Path, tmp_path: Path) -> None:
    """``sha256sum -c``, then ``cat | zstd -d | tar x``, as README.txt says."""
    bundle = tmp_path / "bundle"
    write_bundle(recipe_of(tree), [bundle])
    (tmp_path / "stock").mkdir()
    sh("sha256sum -c SHA256SUMS", bundle)
    sh(f"cat data-*.tar.zst | zstd -d | tar x -p -C {tmp_path}/stock", bundle)
    sh("zstd -tq data-*.tar.zst", bundle)
    unpack(bundle, tmp_path / "own")
    assert snapshot(tmp_path / "stock") == snapshot(tmp_path / "own") == snapshot(tree)


@stock
def test_each_volume_stands_alone_for_zstd(tree: Path, tmp_path: Path) -> None:
    """``zstd -l`` counts the manifest's frames and bytes in each volume."""
    bundle = tmp_path / "bundle"
    manifest = write_bundle(recipe_of(tree), [bundle])
    assert len(manifest.volumes) > 2
    for volume in manifest.volumes:
        last = sh(f"zstd -l {volume.name}", bundle).splitlines()[-1]
        assert last.split()[0] == str(volume.frames)


def test_a_reader_written_from_the_specification(tree: Path, tmp_path: Path) -> None:
    """Reads the bundle with nothing of bundler's, from two disks too."""
    write_bundle(recipe_of(tree), [tmp_path / "bundle"])
    disks = [tmp_path / "disk1", tmp_path / "disk2"]
    for disk in disks:
        shutil.copytree(tmp_path / "bundle", disk)
    (disks[0] / "data-00002.tar.zst").unlink()
    (disks[1] / "data-00001.tar.zst").unlink()
    (tmp_path / "read").mkdir()
    read_bundle(disks, tmp_path / "read")
    assert snapshot(tmp_path / "read") == snapshot(tree)


@pytest.mark.parametrize(
    ("path", "target", "size"),
    [
        ("a" * 100, "", 1),
        ("a" * 101, "", 1),
        ("a" * 99 + "/" + "b" * 100, "", 1),
        ("a" * 155 + "/" + "b" * 100, "", 8**11 - 1),
        ("a" * 156 + "/" + "b" * 100, "", 8**11),
        ("d/" * 70 + "é", "", 10**12),
        ("link", "t" * 100, 0),
        ("link", "t" * 101, 0),
        ("link", "ü", 0),
        ("x/" * 490 + "y" * 20, "", 5),
    ],
)
def test_headers_are_read_back_by_the_standard_library(path: str, target: str, size: int) -> None:
    """``tarfile`` reads what was written; the extended header is there only where it is needed."""
    kind = "link" if target else "file"
    data = tar.header(path, kind, 0o644, size, target)  # type: ignore[arg-type]
    info = tarfile.TarInfo.frombuf(data[-512:], "utf-8", "strict")
    assert info.mtime == tar.MTIME
    with tarfile.open(fileobj=_Stream(data + bytes(1024)), mode="r:") as archive:
        found = archive.next()
    assert found is not None
    assert (found.name, found.size, found.linkname) == (path, size, target)
    plain = path.isascii() and target.isascii() and size < 8**11 and len(target) <= 100
    fits = len(path) <= 100 or path == "a" * 99 + "/" + "b" * 100 or path == "a" * 155 + "/" + "b" * 100
    assert (len(data) == 512) == (plain and fits)


class _Stream:
    """A file that is as long as its tar header says: zeros after the header."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def read(self, count: int) -> bytes:
        part = self.data[self.at : self.at + count]
        self.at += len(part)
        return part

    def seek(self, place: int) -> None:
        self.at = place

    def tell(self) -> int:
        return self.at


@pytest.mark.parametrize("size", [1, 2, 255, 256, 65_791, 131_071, 131_072, 131_073, 1_000_000, 8 * 2**20])
def test_stored_frames_are_zstandard_frames(size: int) -> None:
    """The library decompresses raw blocks of any size, and they take hardly more than the content."""
    data = content(size, size, "random")
    frame = frames.store(data)
    assert zstandard.frame_content_size(frame) == size
    assert zstandard.ZstdDecompressor().decompress(frame) == data
    assert len(frame) <= frames.largest_stored(size)
    room = bytearray(size)
    frames.decompress(frame, memoryview(room))
    assert room == data


@pytest.mark.parametrize("power", [20, 27, 28, 31])
def test_a_frame_with_a_larger_window_than_the_format_allows_is_refused(power: int) -> None:
    """2^27 bytes: more than that a frame could make every reader allocate."""
    data = content(1000, power, "random")
    header = struct.pack("<IBBI", 0xFD2FB528, 0b1000_0000, (power - 10) << 3, len(data))
    frame = header + (len(data) << 3 | 1).to_bytes(3, "little") + data
    assert zstandard.get_frame_parameters(frame).window_size == 2**power
    room = bytearray(len(data))
    if power <= 27:
        frames.decompress(frame, memoryview(room))
        assert room == data
        return
    with pytest.raises(DamagedError):
        frames.decompress(frame, memoryview(room))


def test_the_probe_judges_each_frame_by_its_own_bytes() -> None:
    """Noise is stored, text is compressed, whatever the file is called; level 0 stores all."""
    noise, text = content(2**20, 1, "random"), content(2**20, 1, "text")
    assert frames.compress(noise, 1) == frames.store(noise)
    assert len(frames.compress(text, 1)) < len(text) // 10
    assert frames.compress(text, frames.STORE) == frames.store(text)


def test_a_second_bundle_of_the_same_tree_is_the_same(tree: Path, tmp_path: Path) -> None:
    """Same bytes for 1, 2 and 7 threads, and in a folder of another name; the log alone differs."""
    first = None
    for threads in (1, 2, 7):
        write_bundle(recipe_of(tree), [tmp_path / f"b{threads}"], threads=threads)
        files = files_of(tmp_path / f"b{threads}")
        assert first in (None, files)
        first = files
        unpack(tmp_path / f"b{threads}", tmp_path / f"d{threads}", threads=threads)
        assert snapshot(tmp_path / f"d{threads}") == snapshot(tree)
