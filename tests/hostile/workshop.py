"""A real small bundle that can be altered anywhere and made consistent again: only its lie is wrong."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from bundler.archive import frames, tar
from bundler.archive.recipe import Recipe, current_writer
from bundler.archive.writer import write_bundle
from bundler.manifest import Manifest, Model
from bundler.model import ModelFacts, ModelSpec
from tests.archive.make import FRAME, make_tree, members_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

VOLUME = "data-00001.tar.zst"
Row = tuple[str, str, bytes, str]
"""Path, kind, content and target of an entry."""
GOOD: tuple[Row, ...] = (
    ("weights", "dir", b"", ""),
    ("weights/a", "file", b"content of a\n", ""),
    ("weights/l", "link", b"", "a"),
    ("weights/m0", "dir", b"", ""),
)
MODES = {"file": 0o644, "dir": 0o755, "link": 0o777}


def make_bundle(folder: Path) -> Path:
    """Write the bundle that all are made from: a model, two groups of parity, several volumes."""
    tree = make_tree(folder / "tree", (0, 513, 70_000, 9, 90_000, 1))
    spec = ModelSpec(name="m0", description="a model")
    model = Model(spec=spec, path="weights/m0", origin="folder", facts=ModelFacts(weight_bytes=9))
    head = Manifest(name="little", writer=current_writer(), models=(model,))
    companions: dict[str, Path | bytes] = {"install.sh": b"#!/bin/sh\n", "runtime.tar.gz": b"no runtime"}
    recipe = Recipe(
        head=head,
        members=members_of(tree),
        companions=companions,
        frame_size=FRAME,
        volume_size=60_000,
        parity=1,
    )
    write_bundle(recipe, [folder / "bundle"])
    return folder / "bundle"


@dataclass
class Workshop:
    """One copy of the bundle, in a folder where other things lie that nothing may touch."""

    home: Path
    """Holds the bundle, ``canary``, and later the destination."""
    manifest: dict[str, Any] = field(default_factory=dict)
    """As JSON has it."""

    @property
    def bundle(self) -> Path:
        """The bundle's folder."""
        return self.home / "bundle"

    @property
    def canary(self) -> Path:
        """What a bundle would write to if it could."""
        return self.home / "canary"

    def open(self) -> Workshop:
        """Read the manifest."""
        self.manifest = json.loads((self.bundle / "manifest.json").read_bytes())
        return self

    def seal(self, raw: bytes | None = None) -> None:
        """Write the manifest, and sums over all that is there.

        :param raw: the manifest's bytes, where they are no JSON of ours.
        """
        path = self.bundle / "manifest.json"
        data = json.dumps(self.manifest, separators=(",", ":")).encode() + b"\n" if raw is None else raw
        path.write_bytes(data)
        self.sign()

    def sign(self) -> None:
        """Write sums over all that is there, but for what isn't a file."""
        lines = []
        for path in sorted(self.bundle.iterdir()):
            if path.is_file() and path.name not in ("SHA256SUMS", "pack-log.json"):
                with path.open("rb") as file:
                    lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}\n")
        (self.bundle / "SHA256SUMS").write_text("".join(lines))

    def rebuild(
        self,
        rows: Sequence[Row] = GOOD,
        *,
        alter: Callable[[bytearray], bytes | bytearray] = bytearray,
    ) -> None:
        """Make the bundle of these entries: one volume whose digests are all right.

        :param alter: changes the tar stream, whose offsets stay.
        """
        stream = bytearray()
        tree = []
        for path, kind, content, target in rows:
            stream += tar.header(path, kind, MODES[kind], len(content), target)  # type: ignore[arg-type]
            digest = hashlib.sha256(content).hexdigest() if kind == "file" else ""
            tree.append([path, kind, MODES[kind], len(content), digest, len(stream), target])
            stream += content + bytes(tar.padding(len(content)))
        stream += tar.ending(len(stream))
        self.manifest |= {"tree": tree, "stream_size": len(stream), "models": [], "parity": None}
        stream = bytearray(alter(stream))
        pieces = [stream[at : at + 2**20] for at in range(0, len(stream), 2**20)]
        self.volume([(frames.store(piece), len(piece)) for piece in pieces])

    def volume(self, stored: Sequence[tuple[bytes, int]]) -> None:
        """Put frames, each with the size that the manifest gives it, into the one volume, and seal."""
        for path in self.bundle.glob("*-0*"):
            path.unlink()
        data = b"".join(frame for frame, _ in stored)
        (self.bundle / VOLUME).write_bytes(data)
        one = {
            "name": VOLUME,
            "size": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "frames": len(stored),
        }
        self.manifest["volumes"] = [one]
        self.manifest["frames"] = {
            "raw": [raw for _, raw in stored],
            "stored": [len(frame) for frame, _ in stored],
            "blake3": [blake3(frame).hexdigest() for frame, _ in stored],
            "filter": None,
        }
        self.manifest["stream_size"] = sum(raw for _, raw in stored)
        self.seal()

    def frame(self, make: Callable[[bytes], bytes], raw: int | None = None) -> None:
        """Put one frame of another make in place of a good stream's.

        :param make: makes it of the stream.
        :param raw: the size that the manifest gives it; the stream's own where not given.
        """
        self.rebuild()
        (size,) = self.manifest["frames"]["raw"]
        stored = (self.bundle / VOLUME).read_bytes()
        content = bytearray(size)
        frames.decompress(stored, memoryview(content))
        stream = self.manifest["stream_size"]
        self.volume([(make(bytes(content)), size if raw is None else raw)])
        self.manifest["stream_size"] = stream if raw is None else raw
        self.seal()

    def header(self, path: str, at: int, data: bytes, *, checksum: bool = True) -> None:
        """Change an entry's header in the stream, with all digests right.

        :param at: the field's place in the header's block.
        :param checksum: whether the header's own sum is right.
        """

        def alter(stream: bytearray) -> bytearray:
            name = path.encode()
            start = next(
                n for n in range(0, len(stream), 512) if stream[n : n + len(name) + 1] == name + b"\0"
            )
            block = stream[start : start + 512]
            block[at : at + len(data)] = data
            if checksum:
                block[148:156] = b" " * 8
                block[148:156] = b"%06o\0 " % sum(block)
            stream[start : start + 512] = block
            return stream

        self.rebuild(alter=alter)
