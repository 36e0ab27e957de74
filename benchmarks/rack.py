"""``python -m benchmarks.rack``: one disk for many hosts, by bundler and by what a site has already.

Each host is a network namespace with a full-duplex link of its own, of a set rate, to one switch; all run on
this machine, so that its processors and its disk are shared by them. Needs root, ``ip``, ``tc`` and ``curl``.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bundler.archive.member import FileSource, Member
from bundler.archive.recipe import Recipe, current_writer
from bundler.archive.sums import digest_in
from bundler.archive.writer import write_bundle
from bundler.cli.options import Size
from bundler.common.digest import sha256_of
from bundler.common.units import size_text
from bundler.manifest import Manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PREFIX = f"rack{os.getpid()}-"
"""Of the namespaces' names."""
SWITCH = f"{PREFIX}switch"
PORT = 8000
SHARDS = 8
BURST = "256kb"
"""What a link lets pass at once: some frames of Ethernet, and nothing against the bundle's size."""


@dataclass(frozen=True)
class Rack:
    """The hosts, numbered from 0, which has the disk."""

    work: Path
    digest: str

    @property
    def bundle(self) -> Path:
        """The disk's bundle."""
        return self.work / "bundle"

    def address(self, number: int) -> str:
        """Return where a host shares."""
        return f"http://{_ip(number)}:{PORT}/"

    def place(self, number: int) -> Path:
        """Return where a host unpacks to."""
        return self.work / f"host{number}"

    def start(self, number: int, *words: object, **more: int) -> subprocess.Popen[bytes]:
        """Run a program on a host."""
        command = ["ip", "netns", "exec", f"{PREFIX}{number}", *map(str, words)]
        return subprocess.Popen(
            command, **{"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | more
        )

    @contextmanager
    def serving(self, port: int, *words: object) -> Iterator[None]:
        """Run a server on the host with the disk, from when it listens until the end of the block."""
        process = self.start(0, *words)
        try:
            listens = ["ip", "netns", "exec", f"{PREFIX}0", "ss", "-Hltn", f"sport = :{port}"]
            while not subprocess.run(listens, capture_output=True, check=True).stdout:
                if process.poll() is not None:
                    raise click.ClickException(f"{words[0]} ended: is port {port} in use?")
                time.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.wait()


def plain(rack: Rack, hosts: int) -> float:
    """``python3 -m http.server`` and curl, zstd and tar, the files' sums not compared."""
    volumes = sorted(path.name for path in rack.bundle.glob("data-*"))
    names = " ".join(f"{rack.address(0)}{name}" for name in volumes)
    with rack.serving(PORT, "python3", "-m", "http.server", PORT, "-d", rack.bundle):
        script = f"set -o pipefail; mkdir -p $0 && curl -sf {names} | zstd -dq | tar x -C $0"
        return _all(rack.start(number, "bash", "-c", script, rack.place(number)) for number in _to(hosts))


def rsync(rack: Rack, hosts: int) -> float:
    """Rsync's daemon; the files themselves, which don't shrink."""
    conf = rack.work / "rsyncd.conf"
    conf.write_text(f"use chroot = no\n[disk]\npath = {rack.work / 'tree'}\nread only = yes\nuid = 0\n")
    with rack.serving(873, "rsync", "--daemon", "--no-detach", f"--config={conf}"):
        source = f"rsync://{_ip(0)}/disk/"
        return _all(rack.start(number, "rsync", "-a", source, rack.place(number)) for number in _to(hosts))


def share(rack: Rack, hosts: int) -> float:
    """``bundler share``, and ``bundler unpack`` from it on each."""
    with rack.serving(PORT, *_bundler("share", rack.bundle, "--port", PORT)):
        sources = [rack.address(0)]
        return _all(rack.start(number, *_unpack(rack, number, sources)) for number in _to(hosts))


def share_on(rack: Rack, hosts: int) -> float:
    """The same, each but the last with ``--share``, for the next."""
    with rack.serving(PORT, *_bundler("share", rack.bundle, "--port", PORT)):
        began = time.monotonic()
        sharing = []
        for number in _to(hosts):
            sources = [rack.address(number - 1), *([rack.address(0)] if number > 1 else [])]
            words = _unpack(rack, number, sources)
            if number == hosts:
                last = rack.start(number, *words)
            else:
                words += ["--share", "--port", PORT, "--bind", _ip(number)]
                sharing.append(rack.start(number, *words, stderr=subprocess.PIPE))
        try:
            for process in sharing:
                assert process.stderr is not None
                if not any(line.startswith(b"sharing ") for line in process.stderr):
                    raise click.ClickException("unpack --share ended early")
            if last.wait():
                raise click.ClickException("unpack failed")
            return time.monotonic() - began
        finally:
            for process in sharing:
                process.terminate()
                process.wait()


WAYS: dict[str, Callable[[Rack, int], float]] = {
    "http.server, curl \\| zstd \\| tar": plain,
    "rsync": rsync,
    "share, unpack": share,
    "share, unpack --share": share_on,
}


@click.command()
@click.option("--size", type=Size(), default="128MB", help="Bytes of weights, which don't shrink.")
@click.option("--rate", default="100mbit", show_default=True, help="Each link's, as tc reads it.")
@click.option("--hosts", "counts", type=click.IntRange(1, 64), multiple=True, default=(1, 4, 16))
@click.option("--work", type=click.Path(path_type=Path, file_okay=False, exists=True), help="A disk.")
def main(size: int, rate: str, counts: Sequence[int], work: Path | None) -> None:
    """Measure the seconds until the last of so many hosts has unpacked."""
    ways = {name: way for name, way in WAYS.items() if name != "rsync" or shutil.which("rsync")}
    with tempfile.TemporaryDirectory(dir=work) as name, ExitStack() as stack:
        rack = make_rack(Path(name), size)
        stack.enter_context(links(max(counts), rate))
        click.echo(f"{size_text(size)} of weights, each link {rate}, {os.cpu_count()} cores\n")
        click.echo(f"| hosts | {' | '.join(map(str, counts))} |")
        click.echo("| --- |" + " ---: |" * len(counts))
        for label, way in ways.items():
            seconds = [measured(rack, way, count) for count in counts]
            click.echo(f"| {label} | {' | '.join(f'{one:.0f} s' for one in seconds)} |")


def measured(rack: Rack, way: Callable[[Rack, int], float], hosts: int) -> float:
    """Return one way's seconds; what each host got is compared, and removed."""
    seconds = way(rack, hosts)
    for number in _to(hosts):
        for path in (rack.work / "tree").rglob("*.safetensors"):
            there = rack.place(number) / path.relative_to(rack.work / "tree")
            if there.stat().st_size != path.stat().st_size or sha256_of(there) != sha256_of(path):
                raise click.ClickException(f"{there} isn't what was sent")
        shutil.rmtree(rack.place(number))
    return seconds


def make_rack(work: Path, size: int) -> Rack:
    """Make weights and their bundle."""
    folder = work / "tree" / "weights" / "m"
    folder.mkdir(parents=True)
    members = [Member("weights", "dir"), Member("weights/m", "dir")]
    for number in range(SHARDS):
        path = folder / f"model-{number:05}.safetensors"
        path.write_bytes(secrets.token_bytes(size // SHARDS))
        source, name = FileSource(path), path.relative_to(work / "tree").as_posix()
        members.append(Member(name, "file", size // SHARDS, False, sha256_of(path), source))
    head = Manifest(name="rack", writer=current_writer())
    write_bundle(Recipe(head=head, members=members, volume_size=max(size // 4, 2**25)), [work / "bundle"])
    return Rack(work, digest_in([work / "bundle"]))


@contextmanager
def links(hosts: int, rate: str) -> Iterator[None]:
    """Make the namespaces, and a link of a rate from each to the switch; take them away in the end."""
    names = [SWITCH, *(f"{PREFIX}{number}" for number in range(hosts + 1))]
    try:
        for name in names:
            _run(f"ip netns add {name}")
            _run(f"ip -n {name} link set lo up")
        _run(f"ip -n {SWITCH} link add bridge type bridge")
        _run(f"ip -n {SWITCH} link set bridge up")
        for number, name in enumerate(names[1:]):
            _run(f"ip -n {name} link add uplink type veth peer name port{number} netns {SWITCH}")
            _run(f"ip -n {SWITCH} link set port{number} master bridge up")
            _run(f"ip -n {name} addr add {_ip(number)}/16 dev uplink")
            _run(f"ip -n {name} link set uplink up")
            for place, device in ((name, "uplink"), (SWITCH, f"port{number}")):
                _run(f"tc -n {place} qdisc add dev {device} root tbf rate {rate} burst {BURST} latency 50ms")
        yield
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _ip(number: int) -> str:
    return f"10.213.0.{number + 1}"


def _to(hosts: int) -> range:
    return range(1, hosts + 1)


def _bundler(*words: object) -> list[object]:
    return [sys.executable, "-m", "bundler", *words]


def _unpack(rack: Rack, number: int, sources: Sequence[str]) -> list[object]:
    words = ["unpack", *sources, rack.place(number), "--sha256", rack.digest, "--no-install"]
    return _bundler(*words, "--threads", 2)


def _all(started: Iterator[subprocess.Popen[bytes]]) -> float:
    """Return the seconds until the last of several programs ended, all well."""
    began = time.monotonic()
    ends = [process.wait() for process in [*started]]
    if any(ends):
        raise click.ClickException("a host failed")
    return time.monotonic() - began


def _run(command: str) -> None:
    subprocess.run(command.split(), check=True)


if __name__ == "__main__":
    main()
