"""What the golden bundle is made of; run as a program, it is written anew, into a folder that is named.

A bundle of format 1 that lies on somebody's disk must be read for ever, and a pack of the same things gives
it again: so the bundle in ``tests/data`` is changed only together with the number of the format.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bundler import manifest as manifests
from bundler.archive.member import Member
from bundler.archive.recipe import Recipe, current_writer
from bundler.archive.writer import write_bundle
from bundler.model import ModelFacts, ModelSpec
from tests.archive.make import BytesSource

if TYPE_CHECKING:
    from collections.abc import Iterable

FOLDER = Path(__file__).resolve().parent.parent / "data" / "golden-1"
WHEEL = ".pkg-cache/mirror/files.example.org/little-1.0-py3-none-any.whl"


def noise(size: int, name: str) -> bytes:
    """Return bytes that no compressor makes smaller, the same with every version of Python."""
    return hashlib.shake_128(name.encode()).digest(size)


def contents() -> dict[str, bytes]:
    """Return the files: some that shrink and some that don't, over several frames and within one."""
    text = b"".join(b"line %d of many that are much alike\n" % number for number in range(9000))
    return {
        "pixi.lock": b"version: 7\n",
        "pixi.toml": b'[workspace]\nname = "golden"\n',
        WHEEL: noise(700, "wheel"),
        "weights/Tiny/chat template größe 模型.jinja": b"{{ messages }}\n",
        "weights/Tiny/config.json": b'{"architectures": ["Tiny"]}\n',
        "weights/Tiny/empty": b"",
        "weights/Tiny/merges.txt": text[:150_000],
        "weights/Tiny/model.safetensors": noise(38_000, "weights"),
        "weights/Tiny/run.sh": b"#!/bin/sh\nexit 0\n",
        "weights/Tiny/" + "deep/" * 40 + "vocab.txt": text[:20_001],
    }


def members() -> Iterable[Member]:
    """Return the files as members, an empty folder and links."""
    for path, data in contents().items():
        digest = hashlib.sha256(data).hexdigest()
        yield Member(path, "file", len(data), path.endswith(".sh"), digest, BytesSource(data))
    yield Member("weights/Tiny/void", "dir")
    yield Member("weights/Tiny/latest", "link", target="model.safetensors")
    yield Member("weights/template", "link", target="Tiny/chat template größe 模型.jinja")


def recipe(level: int = 1) -> Recipe:
    """Return the recipe, with frames so small that little content has many."""
    wheel = contents()[WHEEL]
    row = ("wheel", "little", "1.0", "py3_none_any", WHEEL)
    package = manifests.Package(*row, len(wheel), hashlib.sha256(wheel).hexdigest(), 1200, 5)
    head = manifests.Manifest(
        name="golden",
        writer=current_writer(),
        environments=(
            manifests.Environment(
                name="default", aliases=("cu128",), cuda="12.8", python="3.12.9", packages=(package,)
            ),
        ),
        models=(
            manifests.Model(
                spec=ModelSpec(name="Tiny", aliases=("tiny",)),
                path="weights/Tiny",
                origin="folder",
                facts=ModelFacts(weight_bytes=37_000, shards=1, attention_heads=8),
            ),
        ),
        rehearsal=manifests.Rehearsal(status="passed", installer="native", isolation="unshare -n"),
    )
    return Recipe(
        head=head,
        members=list(members()),
        companions={"install.sh": b"#!/bin/sh\nexit 1\n"},
        level=level,
        volume_size=24_000,
        frame_size=8192,
    )


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    write_bundle(recipe(), [folder])
    # It names this machine, and no reader needs it.
    (folder / "pack-log.json").unlink()
