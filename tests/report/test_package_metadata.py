"""Packages' own metadata, read out of packages that are whole, odd, or harmed at any place."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.archive.bundle import Bundle
from bundler.archive.stored_file import FrameCache, open_stored
from bundler.report.inventory import take_inventory
from bundler.report.package_metadata import UNREADABLE, PackageMetadata, read_metadata
from tests.archive.make import content
from tests.report.make import Made, conda, make_bundle, wheel

if TYPE_CHECKING:
    from pathlib import Path

WHEEL = wheel("one", "1", "License-Expression: MIT", "Project-URL: Source Code, https://example.org/code")
CONDA = conda("two", "2", {"license": "MIT"}, {"license": "GPL-2.0-only", "home": ["https://a", "https://b"]})


def read(made: Made, data: bytes | None = None) -> PackageMetadata:
    return read_metadata(made.kind, made.path, io.BytesIO(made.data if data is None else data))


def test_what_a_wheel_says() -> None:
    found = read(WHEEL)
    assert (found.license, found.license_is_expression) == ("MIT", True)
    assert found.source == "https://example.org/code"


def test_the_index_counts_before_what_is_said_about_it() -> None:
    found = read(CONDA)
    assert (found.license, found.homepage) == ("MIT", "https://a, https://b")


@pytest.mark.parametrize("index", [[1], "text", None, {"license": {"a": [1]}}, {"license": 7}])
def test_records_of_another_shape(index: object) -> None:
    made = conda("odd", "1", index, {})  # type: ignore[arg-type]
    try:
        assert isinstance(read(made).license, str)
    except UNREADABLE as problem:
        assert "no object" in str(problem)


@given(st.sampled_from([WHEEL, CONDA]), st.data())
def test_a_harmed_package_raises_what_is_caught(made: Made, data: st.DataObject) -> None:
    harmed = bytearray(made.data)
    for _ in range(data.draw(st.integers(1, 6))):
        harmed[data.draw(st.integers(0, len(harmed) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(harmed)))
    for one in (bytes(harmed), bytes(harmed[:cut])):
        with contextlib.suppress(UNREADABLE):
            read(made, one)


@given(st.binary(max_size=400))
def test_bytes_of_no_package_raise_what_is_caught(noise: bytes) -> None:
    for made in (WHEEL, CONDA):
        with pytest.raises(UNREADABLE):
            read(made, noise)


def test_a_directory_that_spans_frames(tmp_path: Path) -> None:
    """A wheel's directory, at its end, may begin in one frame and end in another."""
    many = wheel("many", "1", "License-Expression: MIT", extra=3000)
    (folder,) = make_bundle(tmp_path, [many])
    with Bundle.open([folder]) as opened:
        (package,) = take_inventory(opened).packages
    assert (package.licence.expression, package.problem) == ("MIT", "")


def test_a_stored_file_is_read_as_a_file_is(tmp_path: Path) -> None:
    made = wheel("big", "1", padding=content(90_000, 1, "random"))
    (folder,) = make_bundle(tmp_path, [made], volume_size=40_000)
    with Bundle.open([folder]) as opened:
        (entry,) = [one for one in opened.manifest.tree if one.path == made.path]
        with open_stored(FrameCache(opened), entry) as file:
            assert file.read() == made.data
            assert (file.seek(-5, 2), file.read(50)) == (len(made.data) - 5, made.data[-5:])
            assert (file.seek(16_000), file.read(40_000)) == (16_000, made.data[16_000:56_000])
            with pytest.raises(OSError, match="beginning"):
                file.seek(-len(made.data) - 1, 2)
