"""A bundle of format 1 that was written once: readers read it, a writer of the same things makes it again.

Reader and writer changed together agree with each other and with no bundle that is out there; this one tells.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
import zstandard
from click.testing import CliRunner

from bundler import manifest as manifests
from bundler.archive.writer import write_bundle
from bundler.cli.main import bundler_command
from tests.archive import golden
from tests.archive.make import snapshot
from tests.archive.reference_reader import read_bundle

if TYPE_CHECKING:
    from pathlib import Path

SUMS = {
    "README.txt": "1bc7c37533a801258ae8982b4453d51379f0c4b385cbd4bc270e55d6dfb375ee",
    "data-00001.tar.zst": "48e7e49e1944c9a40057550cd78beb21e557b2be3d27e631efa26bef7a899c2c",
    "data-00002.tar.zst": "4188f04f08d4f41f3faab666e6e09d81f432052f83e67edb396257547fef9778",
    "data-00003.tar.zst": "fb3b9248b8dbc2755526a237994d62577e5ee3ac98adf9dbb11a948e2457aaec",
    "install.sh": "275239824e00e61b0a220e61a41791c7e9b4bd726f8b0c27077a338f8131c9dc",
    "manifest.json": "a8804a9d9006de7104ee9734879107c1af77c0700cdd69e44ef3a17f5f3bb9a6",
}
STREAM = "f840806e0f86e601847e064ea53873e277ec97292ed425e4b634f82931ac79f5"
TREE = "63238be5ab94c680f36c6f5aa08126c205224b5ba71e3f2a58cf46e2342d5550"
LIBZSTD = "1.5.7"
"""What compressed the bundle's frames: another version may compress the same content to other bytes."""

same_libzstd = pytest.mark.skipif(
    tuple(map(int, LIBZSTD.split("."))) != zstandard.ZSTD_VERSION,
    reason=f"the golden bundle's frames are of libzstd {LIBZSTD}, here is {zstandard.ZSTD_VERSION}: only "
    "streams, stored frames and structure are compared",
)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def frames_of(bundle: Path) -> list[bytes]:
    """Return the frames as the manifest cuts the volumes."""
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    data = b"".join((bundle / volume["name"]).read_bytes() for volume in manifest["volumes"])
    frames = []
    for stored in manifest["frames"]["stored"]:
        frames.append(data[:stored])
        data = data[stored:]
    assert not data
    return frames


def stream_of(bundle: Path) -> bytes:
    return b"".join(zstandard.ZstdDecompressor().decompress(frame) for frame in frames_of(bundle))


def is_stored(frame: bytes) -> bool:
    """Say whether a frame is of raw blocks, which no libzstd had a hand in."""
    return frame[4] == 0xA0 and not frame[9] & 0b110


def without_versions(bundle: Path, *more: str) -> dict[str, Any]:
    """Return the manifest without what names the writer's version, which changes with every release."""
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    return {key: value for key, value in manifest.items() if key not in ("writer", *more)}


def tree_digest(root: Path) -> str:
    return sha256(json.dumps(snapshot(root), sort_keys=True).encode())


def test_the_golden_bundle_is_the_one_that_was_written() -> None:
    assert {path.name: sha256(path.read_bytes()) for path in golden.FOLDER.iterdir()} == {
        **SUMS,
        "SHA256SUMS": sha256("".join(f"{digest}  {name}\n" for name, digest in SUMS.items()).encode()),
    }
    assert sha256(stream_of(golden.FOLDER)) == STREAM


def test_the_golden_bundle_holds_what_a_bundle_can_hold() -> None:
    """Several volumes; stored and compressed frames; a border before a large file; every kind of entry."""
    manifest = manifests.read(golden.FOLDER / "manifest.json")
    stored = [is_stored(frame) for frame in frames_of(golden.FOLDER)]
    assert len(manifest.volumes) == 3
    assert 3 < sum(stored) < len(stored) - 3
    assert manifest.frames.raw[1] < manifest.frames.raw[0] == manifest.frames.raw[2]
    assert {entry.kind for entry in manifest.tree} == {"file", "dir", "link"}
    assert {entry.mode for entry in manifest.tree if entry.kind == "file"} == {0o644, 0o755}
    assert any(not entry.size for entry in manifest.tree if entry.kind == "file")


def test_verify_finds_the_golden_bundle_sound() -> None:
    words = ["verify", "--json", str(golden.FOLDER)]
    done = CliRunner().invoke(bundler_command, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["subjects"][0]["ok"]


def test_unpack_gives_the_golden_tree(tmp_path: Path) -> None:
    words = ["unpack", "--no-install", str(golden.FOLDER), str(tmp_path / "out")]
    done = CliRunner().invoke(bundler_command, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert tree_digest(tmp_path / "out") == TREE
    for path, data in golden.contents().items():
        assert (tmp_path / "out" / path).read_bytes() == data


def test_a_reader_of_the_specification_gives_the_golden_tree(tmp_path: Path) -> None:
    read_bundle([golden.FOLDER], tmp_path)
    assert tree_digest(tmp_path) == TREE


@same_libzstd
def test_a_pack_of_the_same_gives_the_same_bytes(tmp_path: Path) -> None:
    """README.txt apart, whose words are for people and may change."""
    write_bundle(golden.recipe(), [tmp_path])
    again = {name: sha256((tmp_path / name).read_bytes()) for name in SUMS}
    same = {name for name, digest in SUMS.items() if again[name] == digest}
    assert same >= {*SUMS} - {"README.txt", "manifest.json"}
    written, known = (folder / "manifest.json" for folder in (tmp_path, golden.FOLDER))
    writers = [manifests.read(path).writer for path in (written, known)]
    made = written.read_bytes().replace(as_written(writers[0]), as_written(writers[1]))
    assert made == known.read_bytes()


def as_written(writer: manifests.Writer) -> bytes:
    return b'"writer":{"bundler":"%s","libzstd":"%s"}' % (writer.bundler.encode(), writer.libzstd.encode())


@pytest.mark.parametrize("level", [1, 9])
def test_a_pack_of_the_same_gives_the_same_stream_whatever_compresses_it(tmp_path: Path, level: int) -> None:
    """What holds with every libzstd; another level stands for another version's bytes."""
    write_bundle(golden.recipe(level), [tmp_path])
    assert sha256(stream_of(tmp_path)) == STREAM
    moved = ("volumes", "frames")
    assert without_versions(tmp_path, *moved) == without_versions(golden.FOLDER, *moved)
    made, known = frames_of(tmp_path), frames_of(golden.FOLDER)
    assert [is_stored(frame) for frame in made] == [is_stored(frame) for frame in known]
    assert [frame for frame in made if is_stored(frame)] == [frame for frame in known if is_stored(frame)]
    here, there = (manifests.read(folder / "manifest.json") for folder in (tmp_path, golden.FOLDER))
    assert here.frames.raw == there.frames.raw
