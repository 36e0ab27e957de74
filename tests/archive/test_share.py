"""A bundle shared by HTTP, on loopback: read by parts or in order, interrupted, altered, asked for more."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bundler.archive import http_bundle, http_volume
from bundler.archive.bundle import Bundle
from bundler.archive.http_bundle import address_of, open_shared
from bundler.archive.http_volume import HttpVolume
from bundler.archive.kept_volumes import KeptVolumes
from bundler.archive.share import SharedFiles, open_server
from bundler.archive.sums import digest_in
from bundler.archive.trust import Trust
from bundler.archive.unpack import unpack_bundle
from bundler.archive.writer import write_bundle
from bundler.common.progress import SILENT
from bundler.errors import DamagedError, FetchError, UntrustedError
from bundler.host import preflight
from bundler.installation import VOLUMES, Receipt, write_receipt
from bundler.work.unpack import UnpackOptions, check
from bundler.work.update import place_for
from bundler.work.usage import usage
from tests.archive.make import flip, make_tree, recipe_of, snapshot
from tests.cli.conftest import PROJECT, run_bundler

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bundler.archive.http_bundle import SharedBundle
    from bundler.archive.share import Shelf
    from bundler.host.space import Need


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write_bundle(recipe_of(make_tree(tmp_path / "tree")), [tmp_path / "bundle"])
    return tmp_path / "bundle"


@contextmanager
def served(bundle: Path, read: list[str] | None = None) -> Iterator[str]:
    """Share a bundle by bundler's own server; yield the address.

    :param read: gets the name of each file that a part is given of.
    """

    class Counted(SharedFiles):
        def state(self, name: str, begin: int, end: int, seconds: float) -> int:
            if read is not None:
                read.append(name)
            return super().state(name, begin, end, seconds)

    with Bundle.open([bundle]) as opened, shared(Counted(opened)) as address:
        yield address


@contextmanager
def shared(shelf: Shelf, bind: str = "127.0.0.1") -> Iterator[str]:
    """Share what lies on a shelf; yield the address."""
    with open_server(shelf, bind, 0, lambda _: None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://{f'[{bind}]' if ':' in bind else bind}:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def served_whole(bundle: Path) -> Iterator[str]:
    """Share it by Python's own server, which gives whole files only."""
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "-d", str(bundle)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        port = process.stdout.readline().split(" port ")[1].split()[0]
        try:
            yield f"http://127.0.0.1:{port}/"
        finally:
            process.terminate()


@contextmanager
def running(words: list[str]) -> Iterator[str]:
    """Run a command of bundler's that shares; yield the words of the line that it prints for the others."""
    command = [sys.executable, "-m", "bundler", *words]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().partition(": bundler ")[2]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130


def unpack(address: str, bundle: Path, to: Path, threads: int = 4) -> None:
    with open_shared([address], Trust(sha256=digest_in([bundle]))) as opened:
        unpack_bundle(opened, to, threads=threads)


@pytest.mark.parametrize("way", [served, served_whole])
@pytest.mark.parametrize("threads", [1, 4])
def test_it_is_as_from_a_disk(way: object, threads: int, bundle: Path, tmp_path: Path) -> None:
    with way(bundle) as address:  # type: ignore[operator]
        unpack(address, bundle, tmp_path / "to", threads)
    assert snapshot(tmp_path / "to") == snapshot(tmp_path / "tree")


@pytest.mark.parametrize(
    ("trust", "words"),
    [
        (Trust(), "with a signature or a digest"),
        (Trust(sha256="0" * 64), "is not the one that --sha256 names"),
    ],
)
def test_something_must_be_asked_of_it(bundle: Path, trust: Trust, words: str) -> None:
    with served(bundle) as address, pytest.raises(UntrustedError, match=words), open_shared([address], trust):
        pass


def test_what_arrives_altered_is_not_written(bundle: Path, tmp_path: Path) -> None:
    flip(bundle / "data-00002.tar.zst", 50_000)
    with served(bundle) as address, pytest.raises(DamagedError, match="damaged frame"):
        unpack(address, bundle, tmp_path / "to")


def test_a_host_that_goes_away_and_comes_back(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_bundle, "PAUSES", (0.01,))
    reads = iter(range(10**6))
    whole = HttpVolume.ask

    def failing(self: HttpVolume, offset: int, buffer: memoryview, pauses: tuple[float, ...] = ()) -> int:
        if next(reads) > 12:
            raise FetchError("played: the cable is out")
        return whole(self, offset, buffer, pauses)

    with served(bundle) as address:
        with monkeypatch.context() as patch:
            patch.setattr(HttpVolume, "ask", failing)
            with pytest.raises(FetchError):
                unpack(address, bundle, tmp_path / "to")
        unpack(address, bundle, tmp_path / "to")
    assert snapshot(tmp_path / "to") == snapshot(tmp_path / "tree")
    with pytest.raises(FetchError, match="doesn't answer"):
        unpack(address, bundle, tmp_path / "other")


def test_nothing_else_is_given(bundle: Path) -> None:
    (bundle / "secret.txt").write_text("not the bundle's")
    (bundle / "pack-log.json").write_text("{}")
    with served(bundle) as address:
        host = address.split("/")[2]
        for path in (
            "/secret.txt",
            "/pack-log.json",
            "/../tree/weights/m0/file-0",
            "//etc/passwd",
            "/",
            "/%2e",
        ):
            connection = http.client.HTTPConnection(host, timeout=10)
            connection.request("GET", path)
            assert connection.getresponse().status == 404, path
            connection.close()
        connection = http.client.HTTPConnection(host, timeout=10)
        connection.request("GET", "/install.sh")
        assert connection.getresponse().read() == (bundle / "install.sh").read_bytes()
        connection.close()
        size = (bundle / "manifest.json").stat().st_size
        for asked, status, length in (
            ("bytes=0-9", 206, 10),
            (f"bytes={size - 1}-", 206, 1),
            (f"bytes=0-{size * 9}", 200, size),
            (f"bytes={size}-", 416, 0),
            ("bytes=9-3", 416, 0),
            ("lines=1-2", 200, size),
        ):
            connection = http.client.HTTPConnection(host, timeout=10)
            connection.request("GET", "/manifest.json", headers={"Range": asked})
            answer = connection.getresponse()
            assert (answer.status, len(answer.read())) == (status, length), asked
            connection.close()
        connection = http.client.HTTPConnection(host, timeout=10)
        connection.request("POST", "/manifest.json", body=b"x")
        assert connection.getresponse().status == 501
        connection.close()


@pytest.mark.skipif(not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists(), reason="no IPv6 here")
def test_an_address_of_ipv6(bundle: Path, tmp_path: Path) -> None:
    with Bundle.open([bundle]) as opened, shared(SharedFiles(opened), "::1") as address:
        unpack(address, bundle, tmp_path / "to")
    assert snapshot(tmp_path / "to") == snapshot(tmp_path / "tree")


def test_a_rack_may_come_at_once(bundle: Path) -> None:
    """As many connections as sixteen hosts have, before the first is answered: none has to try again."""
    with ExitStack() as stack:
        shelf = SharedFiles(stack.enter_context(Bundle.open([bundle])))
        server = stack.enter_context(open_server(shelf, "127.0.0.1", 0, lambda _: None))
        for _ in range(128):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.server_port), timeout=0.9))


def test_words(tmp_path: Path) -> None:
    assert address_of(Path("http://node0:8000/")) == "http://node0:8000/"
    assert address_of(Path("https://node0/glm")) == "https://node0/glm/"
    assert address_of(Path("http-disk")) is None
    alone = run_bundler("unpack", "http://127.0.0.1:9/", cwd=tmp_path)
    assert alone.returncode == 2 and "DEST --sha256" in alone.stderr
    dead = run_bundler("share", cwd=tmp_path)
    assert dead.returncode == 3


@contextmanager
def relay(hosts: list[str], bundle: Path, to: Path) -> Iterator[tuple[str, SharedBundle]]:
    """Open a bundle that hosts share, and share what comes of it; yield the address and the bundle."""
    with open_shared(hosts, Trust(sha256=digest_in([bundle]))) as opened:
        opened.kept = KeptVolumes(opened, to / VOLUMES)
        with shared(opened.kept) as address:
            yield address, opened


def test_a_volume_that_gets_its_own_name_while_it_is_asked_for(bundle: Path, tmp_path: Path) -> None:
    """Between looking and opening it was renamed: it is found under the new name, and the answer comes."""
    volume = min(bundle.glob("data-*"))
    shutil.copytree(bundle, tmp_path / "shelf")

    class Renaming(SharedFiles):
        looked = 0

        def find(self, name: str) -> tuple[Path, int] | None:
            self.looked += 1
            path, size = super().find(name) or (Path(), 0)
            return (path.with_name(f"{path.name}.partial") if self.looked == 2 else path), size

    with Bundle.open([tmp_path / "shelf"]) as opened, shared(Renaming(opened)) as address:
        connection = http.client.HTTPConnection(address.split("/")[2], timeout=20)
        connection.request("GET", f"/{volume.name}")
        assert connection.getresponse().read() == volume.read_bytes()
        connection.close()


def test_a_chain_takes_the_bundle_from_the_first_host_once(bundle: Path, tmp_path: Path) -> None:
    """Three hosts unpack at once, each from the one before: the first one's volumes are read once."""
    read: list[str] = []
    ends = []
    with ExitStack() as stack:
        first = stack.enter_context(served(bundle, read))
        hosts = [first]
        for number in range(3):
            to = tmp_path / f"host{number}"
            address, opened = stack.enter_context(relay(hosts, bundle, to))
            hosts = [address, first]

            def work(opened: SharedBundle = opened, to: Path = to) -> None:
                unpack_bundle(opened, to, threads=2)

            ends.append(threading.Thread(target=work))
        for thread in reversed(ends):
            thread.start()
        for thread in ends:
            thread.join()
    for number in range(3):
        assert snapshot(tmp_path / f"host{number}") == snapshot(tmp_path / "tree")
        kept = tmp_path / f"host{number}" / VOLUMES
        for name in (path.name for path in bundle.glob("data-*")):
            assert (kept / name).read_bytes() == (bundle / name).read_bytes()
        assert sorted(path.name for path in kept.iterdir() if path.name.endswith(".partial")) == []
    with Bundle.open([bundle]) as opened:
        frames = len(opened.layout)
    assert sum(name.startswith("data-") for name in read) == frames, "each frame left the first host once"


def test_what_a_host_gives_altered_is_taken_from_the_next(bundle: Path, tmp_path: Path) -> None:
    other = shutil.copytree(bundle, tmp_path / "other")
    flip(other / "data-00002.tar.zst", 50_000)
    with (
        served(other) as bad,
        served(bundle) as good,
        relay([bad, good], bundle, tmp_path / "to") as (address, opened),
        relay([address], bundle, tmp_path / "next") as (_, behind),
    ):
        unpack_bundle(opened, tmp_path / "to")
        unpack_bundle(behind, tmp_path / "next")
    assert snapshot(tmp_path / "to") == snapshot(tmp_path / "next") == snapshot(tmp_path / "tree")


def test_a_host_that_ends_is_passed_over(bundle: Path, tmp_path: Path) -> None:
    read: list[str] = []
    with served(bundle) as gone:
        pass
    with served(bundle, read) as address, relay([gone, address], bundle, tmp_path / "to") as (_, opened):
        unpack_bundle(opened, tmp_path / "to")
    assert snapshot(tmp_path / "to") == snapshot(tmp_path / "tree") and read


def test_what_a_host_will_not_have_is_not_waited_for(bundle: Path, tmp_path: Path) -> None:
    """It has most of the files from elsewhere: the frames of these never come to it."""
    shutil.copytree(tmp_path / "tree", tmp_path / "to", symlinks=True)
    victim = max((tmp_path / "to").rglob("*"), key=lambda path: path.is_file() and path.stat().st_size)
    victim.unlink()
    with served(bundle) as address, relay([address], bundle, tmp_path / "to") as (mine, opened):
        unpack_bundle(opened, tmp_path / "to")
        began = time.monotonic()
        with pytest.raises(FetchError, match="404"), relay([mine], bundle, tmp_path / "next") as (_, behind):
            unpack_bundle(behind, tmp_path / "next")
        with relay([mine, address], bundle, tmp_path / "next") as (_, behind):
            unpack_bundle(behind, tmp_path / "next")
        assert time.monotonic() - began < http_volume.WAIT
    assert snapshot(tmp_path / "next") == snapshot(tmp_path / "tree")


def test_what_comes_later_is_waited_for(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that hasn't begun answers that it will have it; whoever asks waits, and gives up in the end."""
    monkeypatch.setattr(http_volume, "WAIT", 1)
    monkeypatch.setattr(http_bundle, "PATIENCE", 1.0)
    with served(bundle) as address, relay([address], bundle, tmp_path / "slow") as (slow, first):
        with pytest.raises(FetchError, match="503"), relay([slow], bundle, tmp_path / "to") as (_, opened):
            unpack_bundle(opened, tmp_path / "to")
        with relay([slow, address], bundle, tmp_path / "to") as (_, opened):
            unpack_bundle(opened, tmp_path / "to", threads=1)
        assert snapshot(tmp_path / "to") == snapshot(tmp_path / "tree")
        monkeypatch.setattr(http_bundle, "PATIENCE", 60.0)
        late = threading.Timer(1.5, unpack_bundle, (first, tmp_path / "slow"))
        late.start()
        with relay([slow], bundle, tmp_path / "next") as (_, opened):
            unpack_bundle(opened, tmp_path / "next")
        late.join()
    assert snapshot(tmp_path / "next") == snapshot(tmp_path / "tree")


def test_what_was_kept_is_compared_before_it_is_given(bundle: Path, tmp_path: Path) -> None:
    """A crash may leave anything in a volume under way; another run gives what is right of it alone."""
    to = tmp_path / "to"
    with served(bundle) as address, relay([address], bundle, to) as (_, opened):
        unpack_bundle(opened, to)
    flip(to / VOLUMES / "data-00001.tar.zst", 20_000)
    (to / VOLUMES / "data-00002.tar.zst").rename(to / VOLUMES / "data-00002.tar.zst.partial")
    read: list[str] = []
    with served(bundle, read) as address, relay([address], bundle, to) as (mine, opened):
        unpack_bundle(opened, to)
        read.clear()
        with relay([mine, address], bundle, tmp_path / "next") as (_, behind):
            unpack_bundle(behind, tmp_path / "next")
    assert snapshot(tmp_path / "next") == snapshot(tmp_path / "tree")
    assert sum(name.startswith("data-") for name in read) == 1, "the damaged frame alone"
    assert (to / VOLUMES / "data-00002.tar.zst").is_file()


def test_what_was_kept_is_a_bundle_that_can_be_shared_later(bundle: Path, tmp_path: Path) -> None:
    to = tmp_path / "to"
    with served(bundle) as address, relay([address], bundle, to) as (_, opened):
        write_receipt(to, Receipt(files=unpack_bundle(opened, to).files))
    (part,) = (one for one in usage(to) if one.part == "volumes for other hosts")
    assert part.bytes >= sum(path.stat().st_size for path in bundle.glob("data-*"))
    with served(to / VOLUMES) as address:
        unpack(address, bundle, tmp_path / "later")
    assert snapshot(tmp_path / "later") == snapshot(tmp_path / "tree")
    # Another bundle's take their place.
    write_bundle(recipe_of(tmp_path / "tree", level=5), [tmp_path / "second"])
    with served(tmp_path / "second") as address, relay([address], tmp_path / "second", to) as (_, opened):
        opened.content(0)
    assert (to / VOLUMES / "SHA256SUMS").read_bytes() == (tmp_path / "second/SHA256SUMS").read_bytes()
    assert len([*(to / VOLUMES).glob("data-*")]) == 1


def test_there_must_be_room_for_what_is_kept(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted: list[Need] = []

    def look(needs: Sequence[Need], *_: object) -> list[object]:
        wanted.extend(needs)
        return []

    monkeypatch.setattr(preflight.disk_checks, "check_space", look)
    size = sum(path.stat().st_size for path in bundle.glob("data-*"))
    with served(bundle) as address, relay([address], bundle, tmp_path / "to") as (_, opened):
        options = UnpackOptions(reporter=SILENT, install=False)
        check(opened, place_for(opened, tmp_path / "to"), options)
    (need,) = (one for one in wanted if one.part == "volumes for other hosts")
    assert need.folder == tmp_path / "to" / VOLUMES and 0 < need.size <= size


def test_a_disk_is_shared_while_it_is_unpacked(bundle: Path, tmp_path: Path) -> None:
    """Nothing is kept then: the others read what the disk has."""
    words = ["unpack", str(bundle), str(tmp_path / "to"), "--share", "--no-install"]
    with running([*words, "--bind", "127.0.0.1", "--port", "0"]) as line:
        words = line.split()
        words[words.index("DEST")] = str(tmp_path / "next")
        assert run_bundler(*words, "--no-install").returncode == 0
    assert snapshot(tmp_path / "next") == snapshot(tmp_path / "to") == snapshot(tmp_path / "tree")
    assert not (tmp_path / "to" / VOLUMES).exists()


def test_unpack_shares_on_and_says_how(bundle: Path, tmp_path: Path) -> None:
    """The line that the first prints works on the second, whose line works on the third."""
    words = ["share", str(bundle), "--bind", "127.0.0.1", "--port", "0"]
    with ExitStack() as stack:
        line = stack.enter_context(running(words))
        for number in (1, 2):
            words = line.split()
            words[words.index("DEST")] = str(tmp_path / f"host{number}")
            more = [] if "--share" in words else ["--share"]
            line = stack.enter_context(
                running([*words, *more, "--no-install", "--bind", "127.0.0.1", "--port", "0"])
            )
            assert line.startswith("http") is False and line.count("http://") == number + 1
        words = line.split()
        words[words.index("DEST")] = str(tmp_path / "last")
        words.remove("--share")
        assert run_bundler(*words, "--no-install").returncode == 0
    assert snapshot(tmp_path / "last") == snapshot(tmp_path / "tree")


def test_the_printed_line_is_one_that_works(bundle: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bundler", "share", str(bundle), "--bind", "127.0.0.1", "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        words = process.stdout.readline().removeprefix("on the others: bundler ").split()
        words[words.index("DEST")] = str(tmp_path / "to")
        done = run_bundler(*words, "--no-install")
        assert done.returncode == 0, done.stderr
        assert f"unpacking little from {words[1]}" in done.stderr
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        assert process.wait(10) == 130 and time.monotonic() - began < 5
        assert "127.0.0.1 reads" in process.stderr.read()
    assert snapshot(tmp_path / "to") == snapshot(tmp_path / "tree")
