"""A bundle shared by HTTP, on loopback: read by parts or in order, interrupted, altered, asked for more."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from bundler.archive import http_bundle
from bundler.archive.bundle import Bundle
from bundler.archive.http_bundle import HttpVolume, address_of, open_shared
from bundler.archive.share import open_server, shared_files
from bundler.archive.sums import digest_in
from bundler.archive.trust import Trust
from bundler.archive.unpack import unpack_bundle
from bundler.archive.writer import write_bundle
from bundler.errors import DamagedError, FetchError, UntrustedError
from tests.archive.make import flip, make_tree, recipe_of, snapshot
from tests.cli.conftest import PROJECT, run_bundler

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write_bundle(recipe_of(make_tree(tmp_path / "tree")), [tmp_path / "bundle"])
    return tmp_path / "bundle"


@contextmanager
def served(bundle: Path) -> Iterator[str]:
    """Share a bundle by bundler's own server; yield the address."""
    with Bundle.open([bundle]) as opened:
        files = shared_files(opened)
    with open_server(files, "127.0.0.1", 0, lambda _: None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
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


def unpack(address: str, bundle: Path, to: Path, threads: int = 4) -> None:
    with open_shared(address, Trust(sha256=digest_in([bundle]))) as opened:
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
    with served(bundle) as address, pytest.raises(UntrustedError, match=words), open_shared(address, trust):
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
    whole = HttpVolume.read_at

    def failing(self: HttpVolume, offset: int, buffer: memoryview) -> None:
        if next(reads) > 12:
            raise FetchError("played: the cable is out")
        whole(self, offset, buffer)

    with served(bundle) as address:
        with monkeypatch.context() as patch:
            patch.setattr(HttpVolume, "read_at", failing)
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


def test_words(tmp_path: Path) -> None:
    from pathlib import Path as Word

    assert address_of(Word("http://node0:8000/")) == "http://node0:8000/"
    assert address_of(Word("https://node0/glm")) == "https://node0/glm/"
    assert address_of(Word("http-disk")) is None
    alone = run_bundler("unpack", "http://127.0.0.1:9/", cwd=tmp_path)
    assert alone.returncode == 2 and "DEST --sha256" in alone.stderr
    dead = run_bundler("share", cwd=tmp_path)
    assert dead.returncode == 3


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
