"""``python -m benchmarks.parity``: what parity costs when a bundle is packed, and what mending takes."""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchmarks.weights import make_weights
from bundler.archive.member import FileSource, Member
from bundler.archive.parity_repair import repair_bundle
from bundler.archive.recipe import Recipe, current_writer
from bundler.archive.writer import write_bundle
from bundler.cli.options import Size
from bundler.common.progress import SilentMeter, SilentReporter
from bundler.common.units import size_text
from bundler.manifest import Manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bundler.common.progress import Meter

COUNTS = (0, 1, 2)


@click.command()
@click.option("--size", type=Size(), default="2GiB", show_default=True, help="Bytes of BF16-like weights.")
@click.option(
    "--dir", "place", type=click.Path(path_type=Path), help="Work folder.  [default: a temporary one]"
)
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--threads", type=click.IntRange(1, 16), help="[default: all processors]")
@click.option("--volume-size", type=Size(), default="128MiB", show_default=True)
def main(size: int, place: Path | None, rounds: int, threads: int | None, volume_size: int) -> None:
    """Pack with 0, 1 and 2 parity volumes, mend a missing volume, and print medians."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir=place) as name:
        work = Path(name)
        weights = Path(place or work) / f"weights-{size}"
        click.echo(f"making {size_text(size)} of weights in {weights} …")
        make_weights(weights, size, 4)
        times: dict[str, list[float]] = {}
        for turn in range(rounds):
            for count in (*COUNTS[turn % 3 :], *COUNTS[: turn % 3]):
                shutil.rmtree(work / "bundle", ignore_errors=True)
                _timed(times, f"pack, parity {count}", "pack", weights, work, volume_size, threads, count)
                if count:
                    (work / "bundle/data-00001.tar.zst").unlink()
                    label = f"a volume missing, parity {count}"
                    _timed(times, label, "repair", weights, work, volume_size, threads, count)
        stored = sum(path.stat().st_size for path in (work / "bundle").glob("data-*"))
        click.echo(f"{os.cpu_count()} processors, {rounds} rounds, medians; {size_text(stored)} of volumes\n")
        for label, series in sorted(times.items()):
            took = statistics.median(series)
            click.echo(f"  {label:<38}{took:7.2f} s {size_text(stored / took):>9}/s of volumes")


def _timed(times: dict[str, list[float]], label: str, *words: object) -> None:
    """Run a step in a process of its own, so that its memory is its own."""
    os.sync()
    line = [sys.executable, "-m", "benchmarks.parity", "step", *map(str, words)]
    done = subprocess.run(line, check=True, stdout=subprocess.PIPE)
    for phase, seconds in json.loads(done.stdout).items():
        times.setdefault(f"{label}: {phase}", []).append(seconds)


class PhaseTimes(SilentReporter):
    """Remembers what each phase takes."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(  # noqa: D102
        self, name: str, total: int | None = None, *, unit: str = "B", done: int = 0
    ) -> Iterator[Meter]:
        begin = time.monotonic()
        yield SilentMeter()
        self.seconds[name] = time.monotonic() - begin


def step(word: str, weights: Path, work: Path, volume_size: int, threads: int | None, count: int) -> None:
    """Pack or mend once, and say how much memory that took."""
    seen = PhaseTimes()
    begin = time.monotonic()
    if word == "repair":
        repair_bundle([work / "bundle"], threads=threads, reporter=seen)
    else:
        members = []
        for line in (weights / "sums").read_text().splitlines():
            path = weights / line[66:]
            size = path.stat().st_size
            members.append(Member(f"weights/m/{path.name}", "file", size, False, line[:64], FileSource(path)))
        head = Manifest(name="bench", writer=current_writer())
        recipe = Recipe(head=head, members=members, volume_size=volume_size, parity=count)
        write_bundle(recipe, [work / "bundle"], threads=threads, reporter=seen)
    seen.seconds["all"] = time.monotonic() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    click.echo(f"{word}, parity {count}: {size_text(peak)} of memory at most", err=True)
    click.echo(json.dumps(seen.seconds))


if __name__ == "__main__":
    if sys.argv[1:2] == ["step"]:
        kind, source, target, volume, workers, parity = sys.argv[2:]
        processors = None if workers == "None" else int(workers)
        step(kind, Path(source), Path(target), int(volume), processors, int(parity))
    else:
        main()
