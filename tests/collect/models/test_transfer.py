"""Reading from a hub in pieces: whatever is cut, ignored or asked for, the bytes are the file's."""

from __future__ import annotations

import hashlib
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.collect.faults import Stopped
from bundler.collect.models.listing import ListedFile
from bundler.collect.models.stream import RemoteSource
from bundler.collect.transfer import Body, Patience, RunningDigests, Transfer
from bundler.errors import DamagedError, FetchError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bundler.collect.models.remote import Remote
    from bundler.collect.network import Origin


@dataclass
class CuttingOrigin:
    """A hub that ends each answer where a list of lengths says, and then no more."""

    data: bytes
    cuts: list[int]
    ignores_range: bool = False
    where: str = "played:a/b f"
    title: str = "Played"
    mend: str = "try later"
    asked: list[int] = field(default_factory=list)

    @contextmanager
    def open(self, start: int, stop: int | None = None, validator: str = "") -> Iterator[Body]:
        self.asked.append(start)
        begin = 0 if self.ignores_range else start
        length = self.cuts.pop(0) if self.cuts else len(self.data)
        part = self.data[begin : stop if not self.ignores_range else None][:length]
        yield Body(begin, len(self.data), (part[at : at + 3] for at in range(0, len(part), 3)))


@dataclass
class CuttingRemote:
    """A model whose every file comes from one such origin."""

    origin: CuttingOrigin

    def transfer(self, file: ListedFile) -> Transfer:
        return transfer(self.origin, file.size)


def transfer(
    origin: CuttingOrigin, size: int, attempts: int = 50, stop: threading.Event | None = None
) -> Transfer:
    patience = Patience(attempts=attempts, first_wait=0.0, longest_wait=0.0)
    return Transfer("f", [cast("Origin", origin)], size, stop=stop or threading.Event(), patience=patience)


@given(st.binary(max_size=60), st.lists(st.integers(0, 30), max_size=20), st.booleans(), st.integers(0, 60))
def test_cuts_anywhere_give_the_files_bytes(data: bytes, cuts: list[int], ignores: bool, start: int) -> None:
    start = min(start, len(data))
    pieces = transfer(CuttingOrigin(data, list(cuts), ignores), len(data)).pieces(start, skip=True)
    assert b"".join(piece for _, piece in pieces) == data[start:]


@given(st.binary(max_size=60), st.lists(st.integers(0, 30), max_size=20), st.booleans(), st.integers(0, 60))
def test_what_begins_anew_says_so_by_its_place(
    data: bytes, cuts: list[int], ignores: bool, start: int
) -> None:
    start = min(start, len(data))
    found = bytearray(data[:start])
    for place, piece in transfer(CuttingOrigin(data, list(cuts), ignores), len(data)).pieces(start):
        assert place <= len(found)
        found[place:] = piece
    assert found == data


@given(
    st.binary(min_size=1, max_size=60), st.lists(st.integers(0, 30), max_size=10), st.booleans(), st.data()
)
def test_a_part_is_read_through_cuts(
    data: bytes, cuts: list[int], ignores: bool, draw: st.DataObject
) -> None:
    start = draw.draw(st.integers(0, len(data) - 1))
    length = draw.draw(st.integers(1, 70))
    found = transfer(CuttingOrigin(data, list(cuts), ignores), len(data)).read(start, length)
    assert found == data[start : start + length]


@given(st.binary(max_size=60), st.lists(st.integers(1, 30), max_size=10), st.integers(0, 60))
def test_a_stream_is_seekable(data: bytes, cuts: list[int], place: int) -> None:
    place = min(place, len(data))
    played = cast("Remote", CuttingRemote(CuttingOrigin(data, list(cuts))))
    source = RemoteSource(played, ListedFile("f", len(data), "0" * 64))
    with source.open() as opened:
        file = cast("BinaryIO", opened)
        assert file.seekable()
        assert file.read(5) == data[:5]
        file.seek(place)
        assert file.tell() == place
        assert file.read() == data[place:]


def test_failures_without_a_byte_between_them_end_it() -> None:
    origin = CuttingOrigin(b"0123456789", [4] + [0] * 20)
    with pytest.raises(FetchError, match="failed 3 times in a row"):
        list(transfer(origin, 10, attempts=3).pieces())
    assert origin.asked == [0, 4, 4]


def test_a_file_of_another_size_is_refused_before_a_byte_of_it() -> None:
    origin = CuttingOrigin(b"0123456789", [])
    with pytest.raises(DamagedError, match="f has 10 bytes at its address, 9 are expected"):
        next(transfer(origin, 9).pieces())
    assert origin.asked == [0] * 4


def test_what_neither_digest_nor_validator_vouches_for_begins_anew() -> None:
    origin = CuttingOrigin(b"0123456789", [4])
    patience = Patience(first_wait=0.0, longest_wait=0.0)
    unchecked = Transfer(
        "f", [cast("Origin", origin)], 10, stop=threading.Event(), patience=patience, checked=False
    )
    places = [place for place, _ in unchecked.pieces()]
    assert origin.asked == [0, 0]
    assert places == [0, 3, 0, 3, 6, 9]


def test_a_stop_ends_the_reading() -> None:
    stop = threading.Event()
    pieces = transfer(CuttingOrigin(b"0123456789", []), 10, stop=stop).pieces()
    next(pieces)
    stop.set()
    with pytest.raises(Stopped):
        next(pieces)


def test_the_wait_that_a_host_asks_for_is_kept() -> None:
    start = time.monotonic()
    Patience(first_wait=0.01).wait(1, 0.2, threading.Event())
    assert 0.2 <= time.monotonic() - start < 5


def test_a_stop_ends_a_wait() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        Patience(first_wait=30.0).wait(1, None, stop)


def test_both_digests_are_compared() -> None:
    data = b"hello\n"
    sha256, blob = hashlib.sha256(data).hexdigest(), "ce013625030ba8dba906f756967f9e9ca394464a"
    for file in (ListedFile("f", 6, sha256), ListedFile("f", 6, git_sha1=blob), ListedFile("f", 6)):
        digests = RunningDigests(file.size, file.sha256, file.git_sha1)
        digests.update(data)
        assert not digests.wrong
    for file in (ListedFile("f", 6, "0" * 64), ListedFile("f", 6, git_sha1="0" * 40)):
        digests = RunningDigests(file.size, file.sha256, file.git_sha1)
        digests.update(data)
        assert digests.wrong
