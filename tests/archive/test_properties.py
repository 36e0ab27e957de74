"""Any tree, any frame and volume size: what is packed is what is unpacked."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundler.archive import frames, tar, validate
from bundler.archive.bundle import Bundle
from bundler.archive.member import Member
from bundler.archive.recipe import Recipe, current_writer
from bundler.archive.unpack import unpack_bundle
from bundler.archive.verify import verify_bundle
from bundler.archive.writer import write_bundle
from bundler.manifest import Manifest
from tests.archive.make import BytesSource, content, snapshot
from tests.archive.reference_reader import read_bundle

FRAME = 4096
ODD = st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/")
NAMES = st.one_of(
    st.sampled_from(
        ["a", "b", "model.safetensors", "with space", "größe", "模型", "-n", "*", "x" * 130, "~"]
    ),
    st.text(ODD, min_size=1, max_size=40).filter(lambda name: name not in (".", "..")),
)
BORDERS = st.builds(
    lambda base, by: max(0, base + by),
    st.sampled_from([0, 512, FRAME, 2 * FRAME, 8 * FRAME, 10 * FRAME]),
    st.integers(-520, 520),
)
FILES = st.tuples(
    st.lists(NAMES, min_size=1, max_size=4),
    BORDERS,
    st.sampled_from(["random", "text", "mixed"]),
    st.booleans(),
    st.booleans(),
)


@st.composite
def trees(draw: st.DrawFn) -> list[Member]:
    """Return members whose paths can all exist at once, in any order."""
    found: dict[str, Member] = {}
    folders: set[str] = set()
    for number, (parts, size, kind, executable, link) in enumerate(draw(st.lists(FILES, max_size=12))):
        path = "/".join(["weights", *parts])
        above = {"/".join(["weights", *parts[:depth]]) for depth in range(len(parts))}
        if path in found or path in folders or above & set(found) or validate.path_finding(path):
            continue
        folders |= above
        if link:
            found[path] = Member(path, "link", target="../" * (len(parts) - 1) + "anywhere")
        else:
            source = BytesSource(content(size, number, kind))
            found[path] = Member(path, "file", size, executable, None, source)
    return list(found.values())


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    members=trees(),
    threads=st.sampled_from([1, 2, 7]),
    level=st.sampled_from([0, 1, 3]),
    volume=st.integers(5000, 90_000),
)
def test_what_is_packed_is_what_is_unpacked(
    members: list[Member], threads: int, level: int, volume: int
) -> None:
    """By bundler, by a reader written from the specification, and by verify."""
    with tempfile.TemporaryDirectory() as base:
        bundle, own, other = Path(base, "bundle"), Path(base, "own"), Path(base, "other")
        head = Manifest(name="any", writer=current_writer())
        recipe = Recipe(head=head, members=members, level=level, volume_size=volume, frame_size=FRAME)
        manifest = write_bundle(recipe, [bundle], threads=threads)
        assert all(one.size <= volume for one in manifest.volumes)
        starts = {sum(manifest.frames.raw[:number]) for number in range(len(manifest.frames.raw))}
        for entry in manifest.tree:
            header = len(tar.header(entry.path, entry.kind, entry.mode, entry.size, entry.target))
            assert entry.size <= 8 * FRAME or entry.offset - header in starts
        with Bundle.open([bundle]) as opened:
            verify_bundle(opened, threads=threads)
            unpack_bundle(opened, own, threads=threads)
        other.mkdir()
        read_bundle([bundle], other)
        assert snapshot(own) == snapshot(other)
        for member in members:
            place = own / member.path
            if member.kind == "link":
                assert str(place.readlink()) == member.target
            else:
                assert isinstance(member.source, BytesSource)
                assert place.read_bytes() == member.source.data


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 3 * 131_072),
    kind=st.sampled_from(["random", "text", "mixed"]),
    level=st.sampled_from([-5, 0, 1, 9]),
)
def test_a_frame_gives_back_its_content(size: int, kind: str, level: int) -> None:
    """And never takes more room than the format allows."""
    data = content(size, size, kind)
    frame = frames.compress(data, level)
    assert len(frame) <= frames.largest_stored(size)
    room = bytearray(size)
    frames.decompress(frame, memoryview(room))
    assert room == data


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["..", "a", "b", ".", "", "bin", ".bundler"]), max_size=6), st.integers(0, 3))
def test_a_link_that_is_let_pass_stays_inside(parts: list[str], depth: int) -> None:
    """Judged by the lexical landing, with nothing after a step down going up again."""
    path, target = "/".join(["d"] * depth + ["link"]), "/".join(parts)
    if validate.link_finding(path, target) is None:
        ups = parts.count("..")
        assert parts[:ups] == [".."] * ups
        assert ups <= depth
        assert not target.startswith("/")
