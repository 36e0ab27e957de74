"""Reading from a hub in pieces: whatever is cut, ignored or asked for, the bytes are the file's."""

from __future__ import annotations

import hashlib
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.collect.models.listing import ListedFile, Listing
from bundler.collect.models.stream import HubSource
from bundler.collect.models.transfer import Body, Digests, Patience, Remote, RetryableError, StoppedError
from bundler.errors import DamagedError, FetchError

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class CuttingClient:
    """A hub that ends each answer where a list of lengths says, and then no more."""

    data: bytes
    cuts: list[int]
    ignores_range: bool = False
    kind: str = "played"
    title: str = "Played"
    asked: list[int] = field(default_factory=list)

    def listing(self, model: str, revision: str | None) -> Listing:
        return Listing((ListedFile("f", len(self.data)),), revision)

    @contextmanager
    def open(
        self, model: str, revision: str | None, path: str, start: int, stop: int | None = None
    ) -> Iterator[Body]:
        self.asked.append(start)
        begin = 0 if self.ignores_range else start
        length = self.cuts.pop(0) if self.cuts else len(self.data)
        part = self.data[begin : stop if not self.ignores_range else None][:length]
        yield Body(begin, len(self.data), (part[at : at + 3] for at in range(0, len(part), 3)))


def remote(client: CuttingClient, attempts: int = 50) -> Remote:
    return Remote(client, "a/b", None, Patience(attempts=attempts, first=0.0, longest=0.0))


@given(st.binary(max_size=60), st.lists(st.integers(0, 30), max_size=20), st.booleans(), st.integers(0, 60))
def test_cuts_anywhere_give_the_files_bytes(data: bytes, cuts: list[int], ignores: bool, start: int) -> None:
    start = min(start, len(data))
    pieces = remote(CuttingClient(data, list(cuts), ignores)).pieces(ListedFile("f", len(data)), start)
    assert b"".join(pieces) == data[start:]


@given(
    st.binary(min_size=1, max_size=60), st.lists(st.integers(0, 30), max_size=10), st.booleans(), st.data()
)
def test_a_part_is_read_through_cuts(
    data: bytes, cuts: list[int], ignores: bool, draw: st.DataObject
) -> None:
    start = draw.draw(st.integers(0, len(data) - 1))
    length = draw.draw(st.integers(1, 70))
    found = remote(CuttingClient(data, list(cuts), ignores)).read("f", start, length)
    assert found == data[start : start + length]


@given(st.binary(max_size=60), st.lists(st.integers(1, 30), max_size=10), st.integers(0, 60))
def test_a_stream_is_seekable(data: bytes, cuts: list[int], place: int) -> None:
    place = min(place, len(data))
    source = HubSource(remote(CuttingClient(data, list(cuts))), ListedFile("f", len(data), "0" * 64))
    with source.open() as opened:
        file = cast("BinaryIO", opened)
        assert file.seekable()
        assert file.read(5) == data[:5]
        file.seek(place)
        assert file.tell() == place
        assert file.read() == data[place:]


def test_failures_without_a_byte_between_them_end_it() -> None:
    client = CuttingClient(b"0123456789", [4] + [0] * 20)
    with pytest.raises(FetchError, match="failed 3 times in a row"):
        list(remote(client, attempts=3).pieces(ListedFile("f", 10)))
    assert client.asked == [0, 4, 4]


def test_a_file_of_another_size_is_refused_before_a_byte_of_it() -> None:
    pieces = remote(CuttingClient(b"0123456789", [])).pieces(ListedFile("f", 9))
    with pytest.raises(DamagedError, match="it was 9 bytes long and is 10 bytes long now"):
        next(pieces)


def test_a_stop_ends_the_reading() -> None:
    source = remote(CuttingClient(b"0123456789", []))
    pieces = source.pieces(ListedFile("f", 10))
    next(pieces)
    source.patience.stop.set()
    with pytest.raises(StoppedError):
        next(pieces)


def test_the_wait_that_a_hub_asks_for_is_kept() -> None:
    start = time.monotonic()
    Patience(first=30.0).wait(5, 0.2)
    assert 0.2 <= time.monotonic() - start < 5


def test_waits_grow_and_a_stop_ends_them() -> None:
    patience = Patience(first=30.0)
    patience.stop.set()
    with pytest.raises(StoppedError):
        patience.wait(1, None)
    assert str(RetryableError("503", 7.0)) == "503"


def test_both_digests_are_compared() -> None:
    data = b"hello\n"
    sha256, blob = hashlib.sha256(data).hexdigest(), "ce013625030ba8dba906f756967f9e9ca394464a"
    for file in (ListedFile("f", 6, sha256), ListedFile("f", 6, git_sha1=blob), ListedFile("f", 6)):
        digests = Digests(file)
        digests.update(data)
        assert digests.wrong is None
    for file in (ListedFile("f", 6, "0" * 64), ListedFile("f", 6, git_sha1="0" * 40)):
        digests = Digests(file)
        digests.update(data)
        assert digests.wrong is not None
