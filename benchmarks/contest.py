"""Pack, verify and unpack by bundler and by stock tools, each a function that does the whole work once."""

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
from bundler.archive.verify import verify_bundle
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

    @property
    def bundle(self) -> Path:
        """Where bundler packs to, and what it and the stock tools as typed unpack."""
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
        write_bundle(Recipe(head=head, members=members, volume_size=self.volume_size), [self.bundle])

    def pack_as_typed(self) -> None:
        """What README files tell to type."""
        typed = self.work / "typed"
        _sh("sha256sum --quiet -c sums", self.weights)
        split = f"split -b {self.volume_size} - {typed}/data-"
        _sh(f"tar c *.safetensors | zstd -q -T0 -1 | {split}", self.weights)
        _sh("sha256sum * > ../typed.sums; sync -f .", typed)

    def pack_at_best(self) -> None:
        """Each shard by itself, on all cores: digested raw, compressed, digested packed, made durable."""
        out = self.work / "best"
        _on_all_cores(
            f'openssl dgst -sha256 -r "$1" > {out}/"$1".raw; zstd -q -1 -T1 "$1" -o {out}/"$1".zst; '
            f'openssl dgst -sha256 -r {out}/"$1".zst > {out}/"$1".sum',
            "*.safetensors",
            self.weights,
        )
        _sh(f"cat *.raw | sed 's/ \\*/  /' | sort -k2 | diff - {self.weights}/sums; sync -f .", out)

    def verify(self) -> None:
        """Each byte of the bundle, once."""
        with Bundle.open([self.bundle]) as bundle:
            verify_bundle(bundle)

    def verify_as_typed(self) -> None:
        """The stock command of the bundle's README.txt."""
        _sh("sha256sum --quiet -c SHA256SUMS", self.bundle)

    def verify_at_best(self) -> None:
        """OpenSSL's sha256 over the packed shards, on all cores."""
        _on_all_cores(
            'openssl dgst -sha256 -r "$1" | cmp - "${1%.zst}".sum.here', "*.zst", self.work / "best"
        )

    def unpack(self) -> None:
        """Check every byte and write: in one pass, durable."""
        with Bundle.open([self.bundle]) as bundle:
            unpack_bundle(bundle, self.work / "own")

    def unpack_as_typed(self) -> None:
        """The stock commands of the bundle's README.txt."""
        self.verify_as_typed()
        theirs = self.work / "theirs"
        _sh(f"cat data-*.tar.zst | zstd -q -d | tar x -C {theirs}; sync -f {theirs}", self.bundle)

    def unpack_at_best(self) -> None:
        """Each packed shard by itself, on all cores: digested, decompressed, made durable."""
        theirs = self.work / "theirs"
        check = 'openssl dgst -sha256 -r "$1" | cmp - "${1%.zst}".sum.here'
        _on_all_cores(f'{check}; zstd -q -d -T1 "$1" -o {theirs}/"${{1%.zst}}"', "*.zst", self.work / "best")
        _sh("sync -f .", theirs)

    def copy(self) -> None:
        """``dd`` of the weights, made durable: what the disk alone allows."""
        for path in sorted(self.weights.glob("*.safetensors")):
            _sh(f"dd if={path} of={self.work}/copied/{path.name} bs=8M conv=fsync status=none", self.work)

    def note_sums(self) -> None:
        """Write the packed shards' digests as OpenSSL says them in their own folder."""
        for path in sorted((self.work / "best").glob("*.sum")):
            name = path.name.removesuffix(".sum")
            digest = path.read_text().split()[0]
            path.with_name(f"{path.name}.here").write_text(f"{digest} *{name}.zst\n")

    def clear(self, *names: str) -> None:
        """Make folders of the work folder new and empty."""
        for name in names:
            shutil.rmtree(self.work / name, ignore_errors=True)
            (self.work / name).mkdir(parents=True)

    def forget(self) -> None:
        """Let the system drop what it holds of the sources, so that they are read from the disk."""
        for folder in (self.weights, self.bundle, self.work / "best"):
            for path in folder.glob("*"):
                with path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _on_all_cores(script: str, pattern: str, folder: Path) -> None:
    """Run a script once for each file, as many at once as there are processors."""
    quoted = script.replace("'", "'\\''")
    _sh(
        f"printf '%s\\0' {pattern} | xargs -0 -n1 -P$(nproc) bash -c 'set -e -o pipefail; {quoted}' -", folder
    )


def _sh(command: str, folder: Path) -> None:
    subprocess.run(
        ["bash", "-c", f"set -e -o pipefail; {command}"], cwd=folder, check=True, stdout=subprocess.DEVNULL
    )
