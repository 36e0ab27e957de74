"""One file over a real connection that breaks in every way a host has."""

from __future__ import annotations

import os
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

import httpx2
import pytest

from bundler.collect.download import Wanted
from bundler.collect.faults import Stopped, Transient, UnreachableError, of_status
from bundler.collect.network import body_of
from bundler.collect.transfer import Patience
from bundler.errors import DamagedError, FetchError, PreflightError
from tests.collect.conftest import QUICK, Downloader, content, sha
from tests.support.fileserver import Cut, Redirect, Slow, Status, Wrong, WrongRange

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.fileserver import FileServer

DATA = content(300_000)


@pytest.fixture
def downloader() -> Iterator[Downloader]:
    made = Downloader()
    with closing(made.network):
        yield made


@pytest.fixture
def wanted(server: FileServer, tmp_path: Path) -> Wanted:
    (server.folder / "a.whl").write_bytes(DATA)
    return Wanted(tmp_path / "out" / "a.whl", (f"{server.url}a.whl",), sha(DATA), len(DATA))


class Counter:
    def __init__(self) -> None:
        self.total = 0

    def __call__(self, amount: int) -> None:
        self.total += amount


def alone(wanted: Wanted) -> bool:
    """Say whether the file is there without anything beside it."""
    return sorted(wanted.path.parent.iterdir()) == [wanted.path]


def test_a_file_comes_whole(downloader: Downloader, wanted: Wanted, server: FileServer) -> None:
    counter = Counter()
    assert downloader.download(wanted, counter) == sha(DATA)
    assert wanted.path.read_bytes() == DATA and alone(wanted)
    assert counter.total == len(DATA)
    assert len(server.requests) == 1


def test_a_cut_connection_is_resumed(downloader: Downloader, wanted: Wanted, server: FileServer) -> None:
    server.fault("/a.whl", Cut(100_000), Cut(50_000))
    counter = Counter()
    downloader.download(wanted, counter)
    assert wanted.path.read_bytes() == DATA and alone(wanted)
    first, second, third = server.requests
    assert first.range is None
    assert second.range == "bytes=100000-" and second.if_range
    assert third.range == "bytes=150000-"
    assert counter.total == len(DATA)


def test_what_an_earlier_process_left_is_resumed(
    downloader: Downloader, wanted: Wanted, server: FileServer
) -> None:
    wanted.path.parent.mkdir()
    wanted.partial.write_bytes(DATA[:123_456])
    downloader.download(wanted)
    assert wanted.path.read_bytes() == DATA
    assert [one.range for one in server.requests] == ["bytes=123456-"]


def test_a_partial_file_that_is_whole_needs_no_request(
    downloader: Downloader, wanted: Wanted, server: FileServer
) -> None:
    wanted.path.parent.mkdir()
    wanted.partial.write_bytes(DATA)
    downloader.download(wanted)
    assert wanted.path.read_bytes() == DATA and server.requests == []


@pytest.mark.parametrize("left", [b"\0" * 1000, b"\0" * 400_000, b"\0" * len(DATA)])
def test_rubbish_in_the_partial_file_is_replaced(downloader: Downloader, wanted: Wanted, left: bytes) -> None:
    wanted.path.parent.mkdir()
    wanted.partial.write_bytes(left)
    counter = Counter()
    downloader.download(wanted, counter)
    assert wanted.path.read_bytes() == DATA and alone(wanted)
    assert counter.total == len(DATA)


def test_a_file_that_changed_meanwhile_starts_over(
    downloader: Downloader, wanted: Wanted, server: FileServer, tmp_path: Path
) -> None:
    """Without a sha256 only the validator tells that the rest is of another file."""
    plain = Wanted(wanted.path, wanted.urls)
    new = content(200_000, seed=1)
    server.fault("/a.whl", Cut(100_000), Status(404))
    with pytest.raises(FetchError):
        downloader.download(plain)
    assert plain.partial_size() == 100_000
    (server.folder / "a.whl").write_bytes(new)
    assert downloader.download(plain) == sha(new)
    assert server.requests[-1].range == "bytes=100000-" and server.requests[-1].if_range
    assert plain.path.read_bytes() == new


def test_hosts_without_ranges(downloader: Downloader, wanted: Wanted, server: FileServer) -> None:
    server.ranges = False
    server.fault("/a.whl", Cut(100_000))
    counter = Counter()
    downloader.download(wanted, counter)
    assert wanted.path.read_bytes() == DATA and counter.total == len(DATA)


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_passing_failures_pass(downloader: Downloader, wanted: Wanted, server: FileServer, code: int) -> None:
    server.fault("/a.whl", Status(code), Status(code))
    downloader.download(wanted)
    assert wanted.path.read_bytes() == DATA and len(server.requests) == 3


def test_retry_after_is_obeyed(downloader: Downloader, wanted: Wanted, server: FileServer) -> None:
    server.fault("/a.whl", Status(429, retry_after="1"))
    start = time.monotonic()
    downloader.download(wanted)
    assert time.monotonic() - start >= 1.0


@pytest.mark.parametrize(
    ("value", "seconds"), [("7", 7), ("soon", None), ("", None), ("Wed, 21 Oct 2015 07:28:00 GMT", 0)]
)
def test_retry_after_in_all_its_forms(value: str, seconds: float | None) -> None:
    fault = of_status(httpx2.Response(429, headers={"Retry-After": value}))
    assert isinstance(fault, Transient) and fault.wait == seconds


@pytest.mark.parametrize(("etag", "validator"), [('"a"', '"a"'), ('W/"a"', "yesterday"), ("", "yesterday")])
def test_a_weak_etag_vouches_for_no_bytes(etag: str, validator: str) -> None:
    headers = {"ETag": etag, "Last-Modified": "yesterday"}
    assert body_of(httpx2.Response(200, headers=headers), 0).validator == validator


def test_another_range_than_was_asked_for_is_not_appended(
    downloader: Downloader, wanted: Wanted, server: FileServer
) -> None:
    """Without a sha256 nothing else would notice."""
    server.fault("/a.whl", Cut(100_000), WrongRange())
    downloader.download(Wanted(wanted.path, wanted.urls))
    assert wanted.path.read_bytes() == DATA


@pytest.mark.parametrize("checked", [True, False])
def test_a_host_that_has_nothing_more_is_asked_from_the_beginning(
    downloader: Downloader, wanted: Wanted, server: FileServer, checked: bool
) -> None:
    server.fault("/a.whl", Cut(100_000), Status(416))
    downloader.download(wanted if checked else Wanted(wanted.path, wanted.urls))
    assert wanted.path.read_bytes() == DATA
    assert [one.range for one in server.requests] == [None, "bytes=100000-", None]


def test_a_host_that_keeps_failing_is_given_up(
    downloader: Downloader, wanted: Wanted, server: FileServer
) -> None:
    server.always("/a.whl", Status(503))
    with pytest.raises(UnreachableError, match="503"):
        downloader.download(wanted)
    assert len(server.requests) == QUICK.attempts


def test_progress_renews_the_retries(server: FileServer, tmp_path: Path) -> None:
    data = content(6 << 20)
    (server.folder / "big").write_bytes(data)
    server.fault("/big", *[Cut((1 << 20) + 1)] * 5)
    wanted = Wanted(tmp_path / "out" / "big", (f"{server.url}big",), sha(data), len(data))
    Downloader(patience=Patience(2, 0.01, 0.02)).download(wanted)
    assert wanted.path.read_bytes() == data and len(server.requests) == 6


@pytest.mark.parametrize(
    ("code", "fix"), [(401, "netrc"), (403, "netrc"), (404, "pixi lock"), (407, "HTTPS_PROXY"), (410, "lock")]
)
def test_lasting_failures_are_not_retried_and_name_the_fix(
    downloader: Downloader, wanted: Wanted, server: FileServer, code: int, fix: str
) -> None:
    server.always("/a.whl", Status(code))
    with pytest.raises(FetchError, match=str(code)) as caught:
        downloader.download(wanted)
    assert caught.value.hint and fix in caught.value.hint
    assert caught.value.where == wanted.urls[0]
    assert len(server.requests) == 1


def test_wrong_bytes_are_fetched_once_more(
    downloader: Downloader, wanted: Wanted, server: FileServer
) -> None:
    server.fault("/a.whl", Wrong())
    counter = Counter()
    downloader.download(wanted, counter)
    assert wanted.path.read_bytes() == DATA and counter.total == len(DATA)


def test_wrong_bytes_twice_are_an_error_that_names_both_sums(
    downloader: Downloader, wanted: Wanted, server: FileServer
) -> None:
    server.always("/a.whl", Wrong())
    with pytest.raises(DamagedError) as caught:
        downloader.download(wanted)
    text = str(caught.value)
    assert wanted.urls[0] in text and sha(DATA) in text
    assert sha(bytes(byte ^ 0xFF for byte in DATA)) in text
    assert list(wanted.path.parent.iterdir()) == [], "no wrong byte is kept"
    assert len(server.requests) == 2


def test_another_length_is_refused_before_it_is_read(
    downloader: Downloader, wanted: Wanted, server: FileServer
) -> None:
    (server.folder / "a.whl").write_bytes(b"<html>log in first</html>")
    with pytest.raises(DamagedError, match=f"25 bytes at its address, {len(DATA)} are expected"):
        downloader.download(wanted)


def test_redirects_are_followed(downloader: Downloader, wanted: Wanted, server: FileServer) -> None:
    (server.folder / "elsewhere").write_bytes(DATA)
    server.always("/a.whl", Redirect(f"{server.url}elsewhere"))
    downloader.download(wanted)
    assert wanted.path.read_bytes() == DATA


def test_the_next_address_is_tried(downloader: Downloader, wanted: Wanted, server: FileServer) -> None:
    (server.folder / "second").write_bytes(DATA)
    (server.folder / "third").write_bytes(b"other" * 60_000)
    addresses = tuple(server.url + name for name in ("none", "third", "second"))
    downloader.download(Wanted(wanted.path, addresses, wanted.sha256, wanted.size))
    assert [one.path for one in server.requests] == ["/none", "/third", "/second"]
    assert wanted.path.read_bytes() == DATA


def test_a_download_goes_on_at_another_mirror(
    downloader: Downloader, wanted: Wanted, server: FileServer
) -> None:
    (server.folder / "second").write_bytes(DATA)
    server.always("/a.whl", Cut(1000))
    addresses = (wanted.urls[0], server.url + "second")
    downloader.download(Wanted(wanted.path, addresses, wanted.sha256, wanted.size))
    assert [(one.path, one.range) for one in server.requests] == [
        ("/a.whl", None),
        ("/second", "bytes=1000-"),
    ]
    assert wanted.path.read_bytes() == DATA


def test_no_host_there(downloader: Downloader, tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match="can't be reached") as caught:
        downloader.download(Wanted(tmp_path / "a", ("http://127.0.0.1:9/a",), sha(DATA)))
    assert caught.value.hint and "HTTPS_PROXY" in caught.value.hint


def test_files_of_this_machine_are_copied(downloader: Downloader, tmp_path: Path) -> None:
    source = tmp_path / "a file + more"
    source.write_bytes(DATA)
    wanted = Wanted(tmp_path / "out" / "a", (source.as_uri(),), sha(DATA), len(DATA))
    downloader.download(wanted)
    assert wanted.path.read_bytes() == DATA and wanted.path.stat().st_ino != source.stat().st_ino
    source.write_bytes(b"x" * len(DATA))
    with pytest.raises(DamagedError):
        downloader.download(wanted)
    source.unlink()
    with pytest.raises(FetchError, match="No such file"):
        downloader.download(wanted)


@pytest.mark.parametrize("pause", [0.2, 30.0])
def test_interrupt_ends_a_slow_download_at_once_and_keeps_what_came(
    downloader: Downloader, wanted: Wanted, server: FileServer, pause: float
) -> None:
    """Also one that waits for a host which went silent."""
    server.always("/a.whl", Slow(10_000, pause))
    problems: list[BaseException] = []

    def run() -> None:
        try:
            downloader.download(wanted)
        except BaseException as problem:
            problems.append(problem)

    thread = threading.Thread(target=run)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.requests and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.5)
    downloader.network.interrupt()
    thread.join(5)
    assert not thread.is_alive()
    assert isinstance(problems[0], Stopped)
    assert 0 < wanted.partial_size() < len(DATA)
    assert DATA.startswith(wanted.partial.read_bytes())


def test_headers_of_the_caller_are_sent(downloader: Downloader, wanted: Wanted, server: FileServer) -> None:
    downloader.download(wanted, headers={"Authorization": "Bearer token"})
    assert server.requests[0].authorization == "Bearer token"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
def test_a_full_disk_is_said_clearly(downloader: Downloader, server: FileServer, small_disk: Path) -> None:
    data = content(3 << 20)
    (server.folder / "big").write_bytes(data)
    wanted = Wanted(small_disk / "big", (f"{server.url}big",), sha(data), len(data))
    with pytest.raises(PreflightError, match="disk is full"):
        downloader.download(wanted)
    assert not wanted.path.exists()


def test_passwords_and_tokens_of_addresses_are_not_shown(downloader: Downloader, tmp_path: Path) -> None:
    urls = ("http://me:pass@127.0.0.1:9/a", "http://127.0.0.1:9/t/tk-secret/forge/a")
    with pytest.raises(FetchError) as caught:
        downloader.download(Wanted(tmp_path / "a", urls, sha(DATA)))
    text = str(caught.value)
    assert "pass" not in text and "secret" not in text
    assert "http://***@127.0.0.1:9/a" in text and "http://127.0.0.1:9/t/***/forge/a" in text
