"""``python -m benchmarks``: bundler against stock tools, all sides in the same run, in turn."""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import psutil

from benchmarks.contest import Contest
from benchmarks.measured import Measured, measure
from benchmarks.picture import Chart, picture
from benchmarks.weights import make_weights
from bundler.cli.options import Size
from bundler.common.units import size_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TOOLS = ("sha256sum", "openssl", "zstd", "tar", "split", "dd", "xargs", "cmp", "nproc")
LABELS = ("bundler", "stock tools, all cores", "stock tools, as typed", "dd, the disk alone")
TABLES = {
    "pack": ("pack", "pack_at_best", "pack_as_typed", "copy"),
    "verify": ("verify", "verify_at_best", "verify_as_typed"),
    "unpack": ("unpack", "unpack_at_best", "unpack_as_typed", "copy"),
}


@dataclass(frozen=True)
class Result:
    """All sides' runs with one size on so many processors."""

    size: int
    """Bytes of weights."""
    cores: int
    runs: dict[str, list[Measured]]

    def median(self, name: str) -> float:
        """Return a side's median in seconds."""
        return statistics.median(run.seconds for run in self.runs[name])

    def memory(self, name: str) -> int:
        """Return the most bytes that a side held."""
        return max(run.memory for run in self.runs[name])


@click.command()
@click.option(
    "--size", "sizes", type=Size(), multiple=True, help="Bytes of BF16-like weights.  [default: 2GiB]"
)
@click.option("--cores", "cores", type=click.IntRange(1), multiple=True, help="Processors.  [default: all]")
@click.option("--shards", default=16, show_default=True, type=click.IntRange(1))
@click.option(
    "--dir", "place", type=click.Path(path_type=Path), help="Work folder.  [default: a temporary one]"
)
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--volume-size", type=Size(), default="1GiB", show_default=True)
@click.option("--cold", is_flag=True, help="Read the sources from the disk: drop them from memory before.")
@click.option("--without", multiple=True, help="A side that isn't run: pack_as_typed, say.")
@click.option("--json", "record", type=click.Path(path_type=Path), help="Write all runs to this file, too.")
@click.option("--svg", type=click.Path(path_type=Path), help="Draw them to this file, too.")
def main(
    sizes: Sequence[int],
    cores: Sequence[int],
    shards: int,
    place: Path | None,
    rounds: int,
    volume_size: int,
    cold: bool,
    without: Sequence[str],
    record: Path | None,
    svg: Path | None,
) -> None:
    """Measure pack, verify and unpack: with each size on the most processors, with the first on each."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        raise click.ClickException(f"these stock tools are missing: {', '.join(missing)}")
    sizes, cores = sizes or (2 * 2**30,), cores or (len(os.sched_getaffinity(0)),)
    pairs = [(size, max(cores)) for size in sizes]
    pairs += [(sizes[0], count) for count in sorted(set(cores) - {max(cores)}, reverse=True)]
    results = []
    with tempfile.TemporaryDirectory(prefix="bench-", dir=place) as work:
        for size, count in pairs:
            weights = Path(place or work) / f"weights-{size}-{shards}"
            click.echo(f"making {size_text(size)} of weights in {weights} …")
            make_weights(weights, size, shards)
            contest = Contest(weights, Path(work), volume_size)
            results.append(Result(size, count, run(contest, count, rounds, cold=cold, without=without)))
            show(results[-1], rounds)
    if record is not None:
        told = {"machine": machine(place), "cold": cold, "results": [asdict(one) for one in results]}
        record.write_text(json.dumps(told, indent=1) + "\n")
    if svg is not None:
        svg.write_text(picture(charts(results)))


def run(
    contest: Contest, cores: int, rounds: int, *, cold: bool, without: Sequence[str]
) -> dict[str, list[Measured]]:
    """Run all sides in turn."""
    steps: list[tuple[Callable[[], None], str]] = [
        (contest.pack, "bundle"),
        (contest.pack_as_typed, "typed"),
        (contest.pack_at_best, "best"),
        (contest.verify, ""),
        (contest.verify_as_typed, ""),
        (contest.verify_at_best, ""),
        (contest.unpack, "own"),
        (contest.unpack_as_typed, "theirs"),
        (contest.unpack_at_best, "theirs"),
        (contest.copy, "copied"),
    ]
    runs: dict[str, list[Measured]] = {}
    for _ in range(rounds):
        for step, folder in steps:
            if step.__name__ in without:
                continue
            if folder:
                contest.clear(folder)
            # What the step before left to be written isn't this one's to pay for.
            os.sync()
            if cold:
                contest.forget()
            runs.setdefault(step.__name__, []).append(measure(step, cores))
            if step.__name__ == "pack_at_best":
                contest.note_sums()
            if folder in ("own", "theirs", "copied", "typed"):
                contest.clear(folder)
    return runs


def show(result: Result, rounds: int) -> None:
    """Print one table for each step."""
    click.echo(
        f"\n{size_text(result.size)} on {result.cores} processors, {rounds} rounds, medians; "
        "each ends with its data on the disk"
    )
    for title, names in TABLES.items():
        click.echo(title)
        for label, name in zip(LABELS, names, strict=False):
            if name not in result.runs:
                continue
            seconds = result.median(name)
            ratio = "" if name == names[0] else f"  bundler is {seconds / result.median(names[0]):.2f}×"
            rate, memory = size_text(result.size / seconds), size_text(result.memory(name))
            cpu = statistics.median(one.cpu for one in result.runs[name])
            click.echo(f"  {label:<24}{seconds:7.2f} s {rate:>9}/s {cpu:6.1f} s cpu {memory:>9}{ratio}")
    click.echo()


def machine(place: Path | None) -> dict[str, object]:
    """Say what the figures are of, without the machine's name."""
    folder = (place or Path(tempfile.gettempdir())).resolve()
    mounts = [one for one in psutil.disk_partitions(all=True) if folder.is_relative_to(one.mountpoint)]
    return {
        "processors": len(os.sched_getaffinity(0)),
        "memory": psutil.virtual_memory().total,
        "file_system": max(mounts, key=lambda one: len(one.mountpoint)).fstype,
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def charts(results: Sequence[Result]) -> list[Chart]:
    """Return what is drawn: throughput over processors, and time over size where there are several."""
    first, most = results[0].size, max(one.cores for one in results)
    over_cores = [one for one in results if one.size == first]
    over_size = [one for one in results if one.cores == most]
    names = {
        f"{step}: {label}": side
        for step, sides in TABLES.items()
        for label, side in zip(LABELS[:2], sides[:2], strict=True)
    }
    drawn = []
    if len(over_cores) > 1:
        lines = {
            label: [(float(one.cores), first / one.median(side) / 1e9) for one in over_cores]
            for label, side in names.items()
            if side in results[0].runs
        }
        drawn.append(Chart(f"{size_text(first)}: throughput over processors", "processors", "GB/s", lines))
    if len(over_size) > 1:
        lines = {
            label: [(one.size / 1e9, one.median(side)) for one in over_size]
            for label, side in names.items()
            if side in results[0].runs
        }
        drawn.append(Chart(f"{most} processors: time over size", "GB", "seconds", lines))
    return drawn


if __name__ == "__main__":
    main()
