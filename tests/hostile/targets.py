"""What reads a bundle's bytes, each as a function of bytes that may raise a message and nothing else."""

from __future__ import annotations

import struct
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import zstandard

from bundler import manifest as manifests
from bundler.archive import frames, parity, sums, tar, validate
from bundler.archive.layout import Layout
from bundler.collect.models.specs import load_spec
from bundler.errors import BundlerError
from bundler.host.doctor import examine_all
from bundler.host.facts import describe
from bundler.launch_names import unlisted
from bundler.report.needs import target_lines
from bundler.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable

    from bundler.host.facts import HostFacts
    from bundler.manifest import Entry, Manifest

CORPUS = Path(__file__).parent / "corpus"
MOST_CONTENT = 2**20
"""Bytes of a frame's content, so that a run takes little memory."""
PIXI = "[workspace]\nname = 'x'\nchannels = []\nplatforms = ['linux-64']\n"


def read_manifest(data: bytes) -> None:
    """Decode, check, lay out, look at what the target needs: what passes is safe to make."""
    manifest = manifests.decode(data, "here")
    validate.check(manifest, "here")
    layout = Layout(manifest)
    assert sum(frame.raw for frame in layout.frames()) == manifest.stream_size
    for entry in manifest.tree:
        check_entry(entry)
    list(target_lines(manifest))
    examine_all(_host(), manifest.environments, manifest.models)
    for model in manifest.models:
        unlisted(model.spec)
    assert manifests.decode(manifests.encode(manifest), "here") == manifest


def check_entry(entry: Entry) -> None:
    """Fail where an entry could be made outside of its tree, or as what does harm."""
    parts = entry.path.split("/")
    assert not {"", ".", ".."} & set(parts), entry
    assert parts[0].casefold() not in (".bundler", ".pixi", "bin", "runtime"), entry
    assert entry.path.isprintable() or not set(entry.path) & set("\0\n\r\x1b\x7f"), entry
    assert entry.mode in (0o644, 0o755, 0o777), entry
    if entry.kind == "link":
        depth = len(parts) - 1
        for part in entry.target.split("/"):
            depth += -1 if part == ".." else 1
            assert depth >= 0, entry


def read_sums(data: bytes) -> None:
    """Parse; what passes has plain names alone, and is what ``sha256sum`` would read."""
    found = sums.parse(data, Path("here"))
    assert all("/" not in name and not name.startswith((".", "-")) for name in found)
    assert sums.parse(sums.render(found), Path("here")) == found


def read_frame(data: bytes) -> None:
    """Decompress into the room that the header itself asks for; what passes is one whole frame."""
    try:
        size = zstandard.get_frame_parameters(data).content_size
    except zstandard.ZstdError:
        size = 512
    room = bytearray(size if 0 < size <= MOST_CONTENT else 512)
    frames.decompress(data, memoryview(room))
    whole = zstandard.ZstdDecompressor(max_window_size=frames.WINDOW).decompressobj()
    assert whole.decompress(data) == room
    assert whole.eof and not whole.unused_data


@cache
def known() -> tuple[Manifest, bytes]:
    """Return a manifest of few entries, and the tar stream that it describes."""
    from tests.archive.test_hostile import manifest_of

    name = "weights/größe-" + "x" * 120
    rows = [("weights", "dir", 0, ""), ("weights/a", "file", 700, ""), ("weights/l", "link", 0, "a")]
    rows += [(name, "file", 512, ""), ("weights/empty", "file", 0, "")]
    manifest = manifest_of(rows)
    stream = b""
    for entry in manifest.tree:
        stream += tar.header(entry.path, entry.kind, entry.mode, entry.size, entry.target)
        stream += bytes(entry.size + tar.padding(entry.size))
    return manifest, stream + tar.ending(len(stream))


def read_tar(data: bytes) -> None:
    """Compare a stream with the manifest: it passes where it differs in contents alone, and nowhere else."""
    manifest, sound = known()
    content = (data + sound[len(data) :])[: len(sound)]
    layout = Layout(manifest)
    (frame,) = layout.frames()
    outside = bytearray(content)
    for entry in manifest.tree:
        outside[entry.offset : entry.offset + entry.size] = bytes(entry.size)
    assert bool([*layout.differences(frame, memoryview(content))]) == (bytes(outside) != sound)


def read_lock(data: bytes) -> None:
    """Load a workspace with this lock, and plan its environments."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        (Path(folder) / "pixi.toml").write_text(PIXI)
        (Path(folder) / "pixi.lock").write_bytes(data)
        workspace = Workspace.load(Path(folder))
        for name in workspace.lock.environments:
            _ = workspace.environment(name).stack


def read_model(data: bytes) -> None:
    """Read a model's manifest."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        (Path(folder) / "m.toml").write_bytes(data)
        unlisted(load_spec(Path(folder) / "m.toml"))


def read_parity(data: bytes) -> None:
    """Read what a parity volume begins with."""
    size = parity.announced(data[: parity.ANNOUNCEMENT])
    header = parity.decode_header(data)
    if header is not None:
        assert size == len(data) == len(header)
        assert header.encode(struct.unpack("<8sQ", data[:16])[1]) == data


TARGETS: dict[str, Callable[[bytes], None]] = {
    "manifest": read_manifest,
    "sums": read_sums,
    "frame": read_frame,
    "tar": read_tar,
    "lock": read_lock,
    "model": read_model,
    "parity": read_parity,
}


def run(target: str, data: bytes) -> None:
    """Give bytes to a target; a message is a good answer."""
    try:
        TARGETS[target](data)
    except BundlerError as problem:
        # The message must be one that can be printed.
        assert str(problem).encode()


def corpus(target: str) -> dict[str, bytes]:
    """Return the inputs that are kept, by name."""
    return {path.name: path.read_bytes() for path in sorted((CORPUS / target).iterdir())}


@cache
def _host() -> HostFacts:
    return describe()
