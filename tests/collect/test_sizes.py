"""Sizes that the lock doesn't state: asked of hosts, remembered, unknown where nobody says."""

from __future__ import annotations

import socketserver
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

from bundler.artifact import Artifact
from bundler.collect.network import open_network
from bundler.collect.sizes import ask_sizes, known_sizes
from bundler.store import Store
from tests.support.fileserver import Redirect, Status

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fileserver import FileServer


def make(server: FileServer, count: int) -> list[Artifact]:
    for number in range(count):
        (server.folder / f"p{number}").write_bytes(b"x" * (100 + number))
    return [Artifact("wheel", f"p{n}", "1", f"{server.url}p{n}", "0" * 64) for n in range(count)]


def ask(artifacts: list[Artifact], store: Store, patience: float = 10.0) -> list[int | None]:
    with closing(open_network(None)) as network:
        found = ask_sizes(artifacts, store, network, patience=patience)
    return [found.get(artifact.url) for artifact in artifacts]


def test_hosts_are_asked_once(server: FileServer, tmp_path: Path) -> None:
    artifacts = make(server, 20)
    (server.folder / "moved").write_bytes(b"x" * 500)
    server.always("/p7", Redirect(f"{server.url}moved"))
    store = Store(tmp_path / "store")
    expected = [500 if n == 7 else 100 + n for n in range(20)]
    assert ask(artifacts, store) == expected
    assert {one.method for one in server.requests} == {"HEAD"}
    count = len(server.requests)
    assert ask(artifacts, store) == expected and len(server.requests) == count
    assert known_sizes(artifacts, store)[artifacts[3].url] == 103


def test_hosts_that_refuse_head(server: FileServer, tmp_path: Path) -> None:
    server.head = False
    assert ask(make(server, 3), Store(tmp_path / "store")) == [100, 101, 102]
    assert all(one.range == "bytes=0-0" for one in server.gets())


def test_what_nobody_says_is_unknown(server: FileServer, tmp_path: Path) -> None:
    artifacts = make(server, 3)
    (server.folder / "p1").unlink()
    server.always("/p2", Status(503))
    assert ask(artifacts, Store(tmp_path / "store")) == [100, None, None]


def test_the_lock_and_the_store_are_believed_without_asking(server: FileServer, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    stated = Artifact("conda", "c", "1", f"{server.url}c", "0" * 64, 42)
    (here,) = make(server, 1)
    store.path(here.url).parent.mkdir(parents=True)
    store.path(here.url).write_bytes(b"12345")
    assert ask([stated, here], store) == [42, 5]
    assert server.requests == []


def test_files_of_this_machine(server: FileServer, tmp_path: Path) -> None:
    make(server, 1)
    artifact = Artifact("conda", "c", "1", (server.folder / "p0").as_uri(), "0" * 64)
    assert ask([artifact], Store(tmp_path / "store")) == [100]


def test_slow_hosts_end_the_asking(server: FileServer, tmp_path: Path) -> None:
    server.pause = 0.5
    start = time.monotonic()
    answers = ask(make(server, 200), Store(tmp_path / "store"), patience=0.6)
    assert time.monotonic() - start < 6
    assert None in answers and any(answers)


def test_no_network_is_noticed_soon(tmp_path: Path) -> None:
    artifacts = [Artifact("wheel", f"p{n}", "1", f"http://127.0.0.1:9/{n}", "0" * 64) for n in range(300)]
    start = time.monotonic()
    assert set(ask(artifacts, Store(tmp_path))) == {None}
    assert time.monotonic() - start < 5


def test_a_host_that_hangs_up_is_not_asked_again_and_again(tmp_path: Path) -> None:
    calls = []

    class HangUp(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            calls.append(1)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), HangUp) as running:
        running.daemon_threads = True
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        url = f"http://127.0.0.1:{running.server_address[1]}/"
        artifacts = [Artifact("wheel", f"p{n}", "1", f"{url}{n}", "0" * 64) for n in range(300)]
        assert set(ask(artifacts, Store(tmp_path))) == {None}
        running.shutdown()
    assert len(calls) < 60
