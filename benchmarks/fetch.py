"""``python -m benchmarks.fetch``: a model from a hub on loopback, by bundler and by the hubs' own clients.

Each connection of the hub gives so many bytes a second, as a distant one does; all sides in turn, each from
nothing, by their commands as typed.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchmarks.measured import Measured, measure
from bundler.cli.options import Size
from bundler.common.units import size_text
from tests.support.hubs import Fault, Hub, Repo, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

PIECE = 65536
"""Bytes that the hub sends between two pauses."""
BLOCK = 2**24
BUNDLER, HF, MODELSCOPE = "bundler fetch", "hf download", "modelscope download"


def model(size: int, shards: int) -> dict[str, bytes]:
    """Return a model's files: BF16 noise, an index where there are several shards."""
    chance, each = random.Random(shards), size // shards // 2 * 2
    files: dict[str, bytes] = {
        "config.json": json.dumps({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}).encode()
    }
    names = ["model.safetensors"]
    if shards > 1:
        names = [f"model-{number:05}-of-{shards:05}.safetensors" for number in range(1, shards + 1)]
        weight_map = {f"w{number}": name for number, name in enumerate(names)}
        files["model.safetensors.index.json"] = json.dumps(
            {"metadata": {}, "weight_map": weight_map}
        ).encode()
    for number, name in enumerate(names):
        tensor = {"dtype": "BF16", "shape": [each // 2], "data_offsets": [0, each]}
        head = json.dumps({f"w{number}": tensor}).encode()
        files[name] = (
            struct.pack("<Q", len(head))
            + head
            + b"".join(chance.randbytes(min(BLOCK, each - at)) for at in range(0, each, BLOCK))
        )
    return files


@contextmanager
def hub_of(size: int, shards: int, pause: float) -> Iterator[str]:
    """Serve a model as ``bench/model`` from a process of its own, and yield the hub's address."""
    here, there = get_context("fork").Pipe()
    process = get_context("fork").Process(target=_serve, args=(size, shards, pause, there), daemon=True)
    process.start()
    try:
        yield here.recv()
    finally:
        process.terminate()
        process.join()


def _serve(size: int, shards: int, pause: float, tell: Connection) -> None:
    repo, files = Repo(), model(size, shards)
    for branch in ("main", "master"):
        repo.put(files, "c" * 40, branch)
    repo.faults = {path: [Fault(10**9, slow=pause)] for path in files}
    for hub in serve(Hub(repos={"bench/model": repo})):
        tell.send(hub.address)
        tell.recv()


@click.command()
@click.option("--size", type=Size(), default="256MiB", show_default=True)
@click.option("--shards", multiple=True, type=click.IntRange(1), help="[default: 1 and 16]")
@click.option(
    "--rate", type=Size(), default="16MiB", show_default=True, help="Bytes a second, by connection."
)
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1))
def main(size: int, shards: tuple[int, ...], rate: int, rounds: int) -> None:
    """Measure, and print medians."""
    for count in shards or (1, 16):
        with hub_of(size, count, PIECE / rate) as address, tempfile.TemporaryDirectory() as work:
            runs: dict[str, list[Measured]] = {}
            for _ in range(rounds):
                for name, side in sides(Path(work), address).items():
                    runs.setdefault(name, []).append(measure(side, os.cpu_count() or 1))
        click.echo(
            f"\n{size_text(size)} in {count} shards, {size_text(rate)}/s a connection, {rounds} rounds"
        )
        for name, series in runs.items():
            seconds = statistics.median(run.seconds for run in series)
            cpu = statistics.median(run.cpu for run in series)
            memory = size_text(max(run.memory for run in series))
            click.echo(
                f"  {name:<20}{seconds:7.2f} s {size_text(size / seconds):>9}/s {cpu:5.1f} s cpu {memory:>9}"
            )


def sides(work: Path, address: str) -> dict[str, Callable[[], None]]:
    """Return each side as one function that fetches the model from nothing."""
    home = work / "home"
    kept = {name: text for name, text in os.environ.items() if name in ("PATH", "LANG")}
    variables = kept | {"HOME": str(home), "HF_ENDPOINT": address, "MODELSCOPE_ENDPOINT": address}
    variables |= {"MODELSCOPE_DOMAIN": address.partition("://")[2], "MODELSCOPE_CACHE": str(home / "ms")}
    programs = Path(sys.executable).parent

    def side(*words: str) -> Callable[[], None]:
        def run() -> None:
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir()
            command = [programs / words[0], *words[1:]]
            done = subprocess.run(command, cwd=home, env=variables, check=False, capture_output=True)
            if done.returncode:
                raise click.ClickException((done.stdout + done.stderr).decode(errors="replace")[-2000:])

        return run

    return {
        BUNDLER: side("bundler", "fetch", "--model", "hf:bench/model", "-C", str(home)),
        HF: side("hf", "download", "bench/model", "--local-dir", str(home / "hf")),
        MODELSCOPE: side("modelscope-hub", "download", "bench/model", "--local-dir", str(home / "m")),
    }


if __name__ == "__main__":
    main()
