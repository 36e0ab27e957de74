"""A large file by several connections: what comes is the file, whatever the host does."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from bundler.collect import ranges
from bundler.collect.client import Credentials
from bundler.collect.download import Wanted, receive
from bundler.collect.faults import Stopped
from bundler.collect.network import Network, Origin
from bundler.collect.ranges import connections_each
from bundler.errors import FetchError
from tests.collect.conftest import QUICK, content, sha
from tests.support.fileserver import Cut, Slow, Status, Wrong, WrongRange

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.fileserver import Fault, FileServer

DATA = content(2_000_000)
SEGMENT = 150_000


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "LARGE", 1_000_000)
    monkeypatch.setattr(ranges, "SEGMENT", SEGMENT)


@pytest.fixture
def network() -> Iterator[Network]:
    with closing(Network(Credentials())) as made:
        yield made


@pytest.fixture
def wanted(server: FileServer, tmp_path: Path) -> Wanted:
    (server.folder / "a.whl").write_bytes(DATA)
    return Wanted(tmp_path / "out" / "a.whl", (f"{server.url}a.whl",), sha(DATA), len(DATA))


def bring(wanted: Wanted, network: Network, counted: int = 0) -> int:
    """Bring the file by four connections; return the bytes that were told of."""
    told: list[int] = []
    receive(
        wanted,
        [Origin(network, url) for url in wanted.urls],
        told.append,
        stop=network.stop,
        counted=counted,
        connections=4,
        patience=QUICK,
    )
    return sum(told)


def test_each_connection_brings_a_part(wanted: Wanted, network: Network, server: FileServer) -> None:
    assert bring(wanted, network) == len(DATA)
    assert wanted.path.read_bytes() == DATA and list(wanted.path.parent.iterdir()) == [wanted.path]
    asked = {one.range for one in server.requests}
    assert asked == {f"bytes={at}-{min(at + SEGMENT, len(DATA)) - 1}" for at in range(0, len(DATA), SEGMENT)}


def test_slow_connections_add_up(wanted: Wanted, network: Network, server: FileServer) -> None:
    server.always("/a.whl", Slow(50_000, 0.05))
    begin = time.monotonic()
    bring(wanted, network)
    assert time.monotonic() - begin < 0.75 * len(DATA) / 50_000 * 0.05
    assert wanted.path.read_bytes() == DATA


def test_it_goes_on_where_it_stopped(wanted: Wanted, network: Network, server: FileServer) -> None:
    wanted.path.parent.mkdir()
    wanted.partial.write_bytes(DATA[:400_000])
    assert bring(wanted, network, counted=400_000) == len(DATA) - 400_000
    assert wanted.path.read_bytes() == DATA
    assert min(int((one.range or "bytes=0-")[6:].split("-")[0]) for one in server.requests) == 400_000


@pytest.mark.parametrize(
    "faults",
    [
        [Cut(70_000)],
        [Cut(70_000)] * 6,
        [Status(503)] * 9,
        [Status(429)] * 3,
        [WrongRange()] * 3,
        [Wrong()],
        [Wrong(), Cut(10)],
    ],
    ids=str,
)
def test_whatever_the_host_does(
    wanted: Wanted, network: Network, server: FileServer, faults: list[Fault]
) -> None:
    server.fault("/a.whl", *faults)
    assert bring(wanted, network) == len(DATA)
    assert wanted.path.read_bytes() == DATA and list(wanted.path.parent.iterdir()) == [wanted.path]


def test_a_host_without_ranges_sends_it_once(wanted: Wanted, network: Network, server: FileServer) -> None:
    server.ranges = False
    assert bring(wanted, network) == len(DATA)
    assert wanted.path.read_bytes() == DATA
    assert [one.range for one in server.requests].count(None) + len(server.requests) <= 8


def test_a_host_that_fails_on_ends_it_once(wanted: Wanted, network: Network, server: FileServer) -> None:
    server.always("/a.whl", Status(404))
    with pytest.raises(FetchError, match="404"):
        bring(wanted, network)
    assert not wanted.path.exists()


def test_told_to_stop_it_keeps_what_came(wanted: Wanted, network: Network, server: FileServer) -> None:
    server.always("/a.whl", Slow(50_000, 0.02))
    told = 0

    def advance(amount: int) -> None:
        nonlocal told
        told += amount
        if told > 500_000:
            network.interrupt()

    origins = [Origin(network, url) for url in wanted.urls]
    with pytest.raises(Stopped):
        receive(wanted, origins, advance, stop=network.stop, connections=4, patience=QUICK)
    kept = wanted.partial.read_bytes()
    assert 500_000 < len(kept) < len(DATA) and DATA.startswith(kept)


def test_files_share_the_connections() -> None:
    assert [connections_each([2_000_000] * count, 8) for count in (0, 1, 2, 3, 8, 90)] == [1, 8, 4, 2, 1, 1]
    assert connections_each([2_000_000, 900_000, 10], 8) == 8
