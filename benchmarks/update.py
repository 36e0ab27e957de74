"""``python -m benchmarks.update``: an installation updated, against the same bundle unpacked anew."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from bundler.archive.member import FileSource, Member
from bundler.archive.recipe import Recipe, current_writer
from bundler.archive.writer import write_bundle
from bundler.cli.options import Size
from bundler.common.digest import sha256_of
from bundler.common.units import size_text
from bundler.manifest import Manifest
from bundler.work.base import read_base

if TYPE_CHECKING:
    from bundler.work.base import DeltaBase

WHEEL = 5_000_000
"""Bytes of the small file that changes with the shard."""


@dataclass(frozen=True)
class Cost:
    """What one unpack took."""

    seconds: float
    read: int
    written: int
    """Bytes by system calls, the program's own modules among those that were read."""


@click.command()
@click.option("--size", type=Size(), default="1GB", help="Bytes of weights, which don't shrink.")
@click.option("--shards", default=16, show_default=True, type=click.IntRange(2))
@click.option("--work", type=click.Path(path_type=Path, file_okay=False, exists=True), help="A disk.")
def main(size: int, shards: int, work: Path | None) -> None:
    """Measure the update of one shard and one wheel: bytes carried, read and written, and seconds."""
    with tempfile.TemporaryDirectory(dir=work) as name:
        top = Path(name)
        tree = top / "tree"
        for number in range(shards):
            _write(tree / f"weights/m/model-{number:05}.safetensors", size // shards)
        _write(tree / "wheels/one.whl", WHEEL)
        old = _pack(tree, top / "old")
        for home in ("whole", "delta"):
            _unpack(old, top / home)
        base = read_base(old)
        shutil.rmtree(old)
        _write(tree / "weights/m/model-00000.safetensors", size // shards)
        _write(tree / "wheels/one.whl", WHEEL)
        new, delta = _pack(tree, top / "new"), _pack(tree, top / "new-delta", base)
        shutil.rmtree(tree)
        click.echo(f"{size_text(size)} of weights in {shards} shards, {os.cpu_count()} cores\n")
        click.echo("| | carried | read | written | seconds |\n| --- | ---: | ---: | ---: | ---: |")
        for label, bundle, home in (
            ("unpacked anew", new, "anew"),
            ("the whole bundle, as an update", new, "whole"),
            ("a delta, as an update", delta, "delta"),
        ):
            cost = _unpack(bundle, top / home)
            carried = sum(path.stat().st_size for path in bundle.iterdir())
            sizes = " | ".join(size_text(one) for one in (carried, cost.read, cost.written))
            click.echo(f"| {label} | {sizes} | {cost.seconds:.1f} |")


def _write(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(secrets.token_bytes(size))


def _pack(tree: Path, bundle: Path, base: DeltaBase | None = None) -> Path:
    """Write a bundle of a tree, or what a base lacks of it."""
    members = []
    for path in sorted(tree.rglob("*")):
        name = path.relative_to(tree).as_posix()
        file = Member(name, "file", path.stat().st_size, source=FileSource(path))
        members.append(replace(file, sha256=sha256_of(path)) if path.is_file() else Member(name, "dir"))
    head = Manifest(name=bundle.name, writer=current_writer())
    if base is not None:
        head = msgspec.structs.replace(head, requires=("delta",), base=base.named)
    lacked = base.contents if base else frozenset()
    write_bundle(Recipe(head=head, members=members, base=lacked), [bundle])
    return bundle


def _unpack(bundle: Path, home: Path) -> Cost:
    """Unpack with nothing of the bundle in the page cache."""
    os.sync()
    for path in bundle.iterdir():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    began = time.monotonic()
    words = [sys.executable, "-m", "bundler", "unpack", str(bundle), str(home)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    # Ended, and still there to be asked.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    seconds = time.monotonic() - began
    lines = (line.split(": ") for line in Path(f"/proc/{process.pid}/io").read_text().splitlines())
    counts = {name: int(count) for name, count in lines}
    if process.wait():
        raise click.ClickException(f"{bundle.name} can't be unpacked")
    return Cost(seconds, counts["rchar"], counts["wchar"])


if __name__ == "__main__":
    main()
