"""Pack and unpack by bundler and by stock tools, each as one function that does the whole work once."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bundler.archive.bundle import Bundle
from bundler.archive.member import FileSource, Member
from bundler.archive.recipe import Recipe, current_writer
from bundler.archive.unpack import unpack_bundle
from bundler.archive.writer import write_bundle
from bundler.manifest import Manifest

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Contest:
    """One set of weights, and a folder to work in."""

    weights: Path
    """The folder with the shards and ``sums``, the publisher's digests."""
    work: Path
    volume_size: int
    threads: int | None

    @property
    def bundle(self) -> Path:
        """Where bundler packs to, and what both sides unpack."""
        return self.work / "bundle"

    def pack(self) -> None:
        """Check the publisher's sha256, compress, digest, make durable: in one pass."""
        lines = (self.weights / "sums").read_text().splitlines()
        members = []
        for line in lines:
            path = self.weights / line[66:]
            size = path.stat().st_size
            members.append(Member(f"weights/m/{path.name}", "file", size, False, line[:64], FileSource(path)))
        head = Manifest(name="bench", writer=current_writer())
        recipe = Recipe(head=head, members=members, volume_size=self.volume_size)
        write_bundle(recipe, [self.bundle], threads=self.threads)

    def pack_as_typed(self) -> None:
        """What README files tell to type."""
        self._pack("sha256sum --quiet -c sums", "sha256sum")

    def pack_at_best(self) -> None:
        """The fastest of stock tools: OpenSSL's sha256, in parallel."""
        parallel = f"xargs -0 -n1 -P{os.cpu_count()} openssl dgst -sha256 -r"
        self._pack(
            f"printf '%s\\0' *.safetensors | {parallel} | sed 's/ \\*/  /' | sort -k2 | diff - sums", parallel
        )

    def _pack(self, check: str, digest: str) -> None:
        out = self.work / "stock"
        names = "*" if "xargs" not in digest else ""
        tail = f"{digest} {names}" if names else f"printf '%s\\0' * | {digest}"
        _sh(check, self.weights)
        _sh(f"tar c *.safetensors | zstd -q -T0 -1 | split -b {self.volume_size} - {out}/data-", self.weights)
        _sh(f"{tail} > ../stock.sums; sync -f .", out)

    def unpack(self) -> None:
        """Check every byte and write: in one pass, durable."""
        with Bundle.open([self.bundle]) as bundle:
            unpack_bundle(bundle, self.work / "own", threads=self.threads)

    def unpack_as_typed(self) -> None:
        """The stock commands of the bundle's README.txt."""
        _sh("sha256sum --quiet -c SHA256SUMS", self.bundle)
        self._extract()

    def unpack_at_best(self) -> None:
        """OpenSSL's sha256 over the volumes in parallel, then the same pipe."""
        _sh(f"printf '%s\\0' data-* | xargs -0 -n1 -P{os.cpu_count()} openssl dgst -sha256 -r", self.bundle)
        self._extract()

    def _extract(self) -> None:
        _sh(
            f"cat data-*.tar.zst | zstd -q -d | tar x -C {self.work}/theirs; sync -f {self.work}/theirs",
            self.bundle,
        )

    def copy(self) -> None:
        """``dd`` of the weights, made durable: what the disk alone allows."""
        for path in sorted(self.weights.glob("*.safetensors")):
            _sh(f"dd if={path} of={self.work}/copied/{path.name} bs=8M conv=fsync status=none", self.work)

    def clear(self, *names: str) -> None:
        """Make folders of the work folder new and empty."""
        for name in names:
            shutil.rmtree(self.work / name, ignore_errors=True)
            (self.work / name).mkdir(parents=True)


def _sh(command: str, folder: Path) -> None:
    subprocess.run(
        ["bash", "-c", f"set -e -o pipefail; {command}"], cwd=folder, check=True, stdout=subprocess.DEVNULL
    )
