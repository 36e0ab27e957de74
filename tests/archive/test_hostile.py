"""Manifests that lie: refused before anything is written, whatever they say."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from bundler import manifest as manifests
from bundler.archive import sums, tar, validate
from bundler.archive.layout import Layout
from bundler.archive.recipe import current_writer
from bundler.archive.validate import VOLUME_NAME
from bundler.archive.writer import write_bundle
from bundler.errors import DamagedError, DestinationError, InputError, PreflightError
from bundler.manifest import Entry, Frames, Manifest, Volume
from tests.archive.make import make_tree, recipe_of, snapshot, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

DIGEST = "0" * 64


def manifest_of(rows: Sequence[tuple[str, str, int, str]], frame: int = 8 * 2**20, **fields: Any) -> Manifest:
    """Return a consistent manifest of path, kind, size and target rows: only what is tested is wrong."""
    modes = {"file": 0o644, "dir": 0o755, "link": 0o777}
    shaped = [(path, kind, modes[kind], size, target) for path, kind, size, target in rows]
    places = list(tar.places(shaped))  # type: ignore[arg-type]
    tree = tuple(
        Entry(path, kind, mode, size, DIGEST if kind == "file" else "", place.content, target)  # type: ignore[arg-type]
        for (path, kind, mode, size, target), place in zip(shaped, places, strict=True)
    )
    end = places[-1].end if places else 0
    stream = end + len(tar.ending(end))
    raw = [frame] * (stream // frame) + ([stream % frame] if stream % frame else [])
    stored = tuple(one // 2 + 20 for one in raw)
    per_volume = max(1, 8 * 2**30 // frame)
    volumes = tuple(
        Volume(
            name=VOLUME_NAME.format(first // per_volume + 1),
            size=sum(stored[first : first + per_volume]),
            sha256=DIGEST,
            frames=len(stored[first : first + per_volume]),
        )
        for first in range(0, len(raw), per_volume)
    )
    frames = Frames(raw=tuple(raw), stored=stored, blake3=tuple(f"{n:064x}" for n in range(len(raw))))
    return msgspec.structs.replace(
        Manifest(
            name="made",
            writer=current_writer(),
            tree=tree,
            stream_size=stream,
            volumes=volumes,
            frames=frames,
        ),
        **fields,
    )


GOOD = [("weights", "dir", 0, ""), ("weights/a", "file", 5, ""), ("weights/l", "link", 0, "a")]


def test_the_manifest_the_others_are_made_from_is_sound() -> None:
    """Without it the refusals below would prove nothing."""
    validate.check(manifest_of(GOOD), "here")


@pytest.mark.parametrize(
    ("row", "word"),
    [
        (("/etc/passwd", "file", 1, ""), "absolute"),
        (("../up", "file", 1, ""), "not normalised"),
        (("weights/../../up", "file", 1, ""), "not normalised"),
        (("weights//a", "file", 1, ""), "not normalised"),
        (("weights/./a", "file", 1, ""), "not normalised"),
        (("", "file", 1, ""), "empty"),
        (("weights/a\x00b", "file", 1, ""), "control characters"),
        (("weights/a\nb", "file", 1, ""), "control characters"),
        (("weights/a\x9b2Jb", "file", 1, ""), "control characters"),
        (("weights/a\u2028b", "file", 1, ""), "control characters"),
        (("weights/a\u202egnp.exe", "file", 1, ""), "control characters"),
        (("weights/k", "link", 0, "a\x1b[2J"), "target with control characters"),
        (("weights/k", "link", 0, "a\0b"), "target with control characters"),
        (("weights/" + "x" * 256, "file", 1, ""), "too long"),
        (("weights/a", "file", 1, ""), "there twice"),
        (("weights/a/b", "file", 1, ""), "not under a folder"),
        (("weights/l/b", "file", 1, ""), "not under a folder"),
        (("nowhere/b", "file", 1, ""), "not under a folder"),
        ((".bundler", "dir", 0, ""), "belongs to the installation"),
        ((".Bundler", "dir", 0, ""), "belongs to the installation"),
        ((".pixi", "dir", 0, ""), "belongs to the installation"),
        (("bin", "dir", 0, ""), "belongs to the installation"),
        (("runtime", "file", 1, ""), "belongs to the installation"),
        (("weights/k", "link", 0, "/etc/passwd"), "no relative target"),
        (("weights/k", "link", 0, ""), "no relative target"),
        (("weights/k", "link", 0, "../../up"), "leads out"),
        (("weights/k", "link", 0, "a/../../x"), "not normalised"),
        (("weights/k", "link", 0, "../.bundler/receipt.json"), "belongs to the installation"),
        (("k", "link", 0, "bin/bundler"), "belongs to the installation"),
        (("weights/k", "file", -1, ""), "absurd size"),
        (("weights/k", "file", 2**61, ""), "absurd size"),
        (("weights/k", "file", 1, "a"), "a link's target"),
        (("weights/k", "dir", 0, "a"), "has a target"),
    ],
)
def test_hostile_entries(row: tuple[str, str, int, str], word: str) -> None:
    """Paths, links and sizes that would lead out of the tree, over the installation or past the disk."""
    try:
        manifest = manifest_of([*GOOD, row], frame=16 * 2**20 if row[2] < 2**40 else 2**62)
    except (OverflowError, ValueError):
        pytest.skip("can't be written down")
    with pytest.raises(InputError, match=word):
        validate.check(manifest, "here")


@pytest.mark.parametrize(
    ("links", "word"),
    [
        ({"weights/up": "..", "weights/k": "up/.bundler/receipt.json"}, "leads into .bundler/ over"),
        ({"weights/k": "up/.Pixi/envs", "weights/up": ".."}, "leads into .Pixi/ over"),
        ({"weights/up": "..", "weights/over": "up/weights/up", "weights/k": "over/bin"}, "leads into bin/"),
        ({"weights/d/e/back": "../..", "weights/k": "d/e/back/../x"}, "not normalised"),
        ({"weights/up": "..", "weights/d/k": "../up/weights/l/x"}, None),
        ({"weights/k": "m", "weights/m": "k"}, None),
    ],
)
def test_links_over_links(links: dict[str, str], word: str | None) -> None:
    """Two that are harmless alone lead to what the installation owns; a circle leads nowhere."""
    folders = [("weights/d", "dir", 0, ""), ("weights/d/e", "dir", 0, "")]
    rows = [*GOOD, *folders, *((path, "link", 0, target) for path, target in links.items())]
    if word is None:
        validate.check(manifest_of(rows), "here")
        return
    with pytest.raises(InputError, match=word):
        validate.check(manifest_of(rows), "here")


def test_a_link_over_a_shorter_way_up_leads_out() -> None:
    """``far/deep/k`` goes up two folders; reached over a link, these are others."""
    rows = [*GOOD, ("a", "dir", 0, ""), ("a/b", "dir", 0, ""), ("a/b/up", "link", 0, "../../weights/l2")]
    rows += [("weights/l2", "link", 0, "../a")]
    validate.check(manifest_of(rows), "here")


@pytest.mark.parametrize(
    "data",
    [
        b'{"format":0}',
        b'{"format":-3}',
        b'{"format":1,"name":"\xff"}',
        b'{"format":1,"requires":["\xff"]}',
        b"[" * 100_000,
        b'{"format":1,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"format":' + b"9" * 5000 + b"}",
        b'{"format":1,"stream_size":' + b"9" * 5000 + b"}",
        b'{"format":1e400}',
        b"",
    ],
)
def test_text_that_is_no_manifest(data: bytes) -> None:
    """Whatever it is made of: one sentence, and never a defect."""
    with pytest.raises(InputError, match=r"manifest\.json"):
        manifests.decode(data, "here")


@pytest.mark.parametrize(
    "line",
    [
        b"%s  a\x0bb\n",
        b"%s  a\r\n",
        b"%s  a\x0c%s  b\n",
        b"%s  a\xe2\x80\xa8%s  b\n",
        b"%s  a\x85%s  b\n",
        b"%s  a\n\n",
        b"\n",
        b"%s  \xff\n",
        b"%s  a\n%s  a\n",
        b"%s  ../a\n",
    ],
)
def test_sums_are_split_at_line_feeds_alone(line: bytes, tmp_path: Path) -> None:
    """What ``sha256sum`` reads as one line is one line here, and no checksum."""
    with pytest.raises(DamagedError, match="not a checksum"):
        sums.parse(line.replace(b"%s", DIGEST.encode()), tmp_path)


def change(field: str, make: Callable[[Any], Any]) -> Callable[[Manifest], Manifest]:
    return lambda manifest: msgspec.structs.replace(manifest, **{field: make(getattr(manifest, field))})


def in_volume(**fields: Any) -> Callable[[Manifest], Manifest]:
    return change("volumes", lambda volumes: (msgspec.structs.replace(volumes[0], **fields), *volumes[1:]))


def in_frames(**fields: Any) -> Callable[[Manifest], Manifest]:
    return change("frames", lambda frames: msgspec.structs.replace(frames, **fields))


def in_entry(**fields: Any) -> Callable[[Manifest], Manifest]:
    return change("tree", lambda tree: (tree[0], msgspec.structs.replace(tree[1], **fields), *tree[2:]))


@pytest.mark.parametrize(
    ("alter", "word"),
    [
        (in_volume(name="../data-00001.tar.zst"), "is called"),
        (in_volume(name="data-00002.tar.zst"), "is called"),
        (in_volume(size=7), "its frames take"),
        (in_volume(frames=2), "frames"),
        (in_volume(frames=0), "frames"),
        (in_volume(sha256="x"), "no sha256"),
        (in_frames(raw=(10240,), stored=(10**12,)), "more room"),
        (in_frames(raw=(10**12,)), "holds nothing, or more"),
        (in_frames(raw=(0,)), "holds nothing, or more"),
        (in_frames(raw=(5120,)), "the frames hold"),
        (in_frames(blake3=("F" * 64,)), "hex digits"),
        (in_frames(blake3=()), "differ in length"),
        (in_frames(filter=("shuffle",)), "filters"),
        (in_entry(offset=0), "lies at 0"),
        (in_entry(offset=-1), "aren't in the stream"),
        (in_entry(size=2**50), "lies at"),
        (in_entry(mode=0o4755), "has mode 4755"),
        (in_entry(sha256=""), "no sha256"),
        (change("stream_size", lambda size: size + 512), "the stream has"),
        (change("volumes", lambda volumes: ()), "the volumes have 0 frames"),
        (change("name", lambda name: "../name"), "can't be a folder's name"),
        (
            change("base", lambda base: manifests.Base(name="b", manifest_sha256=DIGEST)),
            "`delta` isn't required",
        ),
    ],
)
def test_hostile_indexes(alter: Callable[[Manifest], Manifest], word: str) -> None:
    """Sizes, sums and names that don't make one stream."""
    with pytest.raises(InputError, match=word):
        validate.check(alter(manifest_of(GOOD)), "here")


def test_unknown_features_and_newer_formats_are_refused() -> None:
    """A reader that doesn't know what it reads would do wrong."""
    data = manifests.encode(msgspec.structs.replace(manifest_of(GOOD), requires=("teleport",)))
    with pytest.raises(InputError, match="newer bundler"):
        manifests.decode(data, "here")


def test_the_manifest_of_a_terabyte_is_planned_in_seconds() -> None:
    """125,000 frames and 400 files: decoded, checked, indexed and walked through."""
    rows = [("weights", "dir", 0, "")]
    rows += [(f"weights/model-{number:05}.safetensors", "file", 2_621_440_000, "") for number in range(400)]
    data = manifests.encode(manifest_of(rows))
    begin = time.monotonic()
    manifest = manifests.decode(data, "here")
    validate.check(manifest, "here")
    layout = Layout(manifest)
    covered = sum(piece.end - piece.begin for frame in layout.frames() for piece in layout.slices(frame))
    assert covered == 400 * 2_621_440_000
    assert len(layout) > 124_000
    assert time.monotonic() - begin < 10
    frame = layout.frame(layout.of_file(200)[0])
    assert frame.start <= manifest.tree[200].offset < frame.start + frame.raw


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write_bundle(recipe_of(make_tree(tmp_path / "tree", [70_000, 5])), [tmp_path / "bundle"])
    return tmp_path / "bundle"


def test_a_link_planted_in_the_destination_is_never_followed(bundle: Path, tmp_path: Path) -> None:
    """Neither in place of a folder nor in place of a file."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "out/.bundler").mkdir(parents=True)
    (tmp_path / "out/weights").symlink_to(outside)
    with pytest.raises(DestinationError, match="something else is in the place"):
        unpack(bundle, tmp_path / "out")
    (tmp_path / "out/weights").unlink()
    (tmp_path / "out/weights/m0").mkdir(parents=True)
    (tmp_path / "out/weights/m0/file-0").symlink_to(outside / "victim")
    with pytest.raises(DestinationError):
        unpack(bundle, tmp_path / "out")
    assert not list(outside.iterdir())


def test_state_that_is_a_link_is_refused(bundle: Path, tmp_path: Path) -> None:
    """Or else another folder's files would be written."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/.bundler").symlink_to(outside)
    with pytest.raises(DestinationError):
        unpack(bundle, tmp_path / "out")
    assert not list(outside.iterdir())


def test_unfit_destinations(bundle: Path, tmp_path: Path) -> None:
    """Each has one message, and nothing is written."""
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/file").touch()
    for place in (bundle, bundle / "below", tmp_path, tmp_path / "foreign", tmp_path / "foreign/file"):
        with pytest.raises(DestinationError):
            unpack(bundle, place)
    assert [path.name for path in (tmp_path / "foreign").iterdir()] == ["file"]
    with pytest.raises(PreflightError, match="can't be written to"):
        unpack(bundle, tmp_path.__class__("/proc/bundler"))


def test_a_file_system_that_doesnt_tell_case(tmp_path: Path) -> None:
    """Refused where names would collide, said which; harmless bundles of models pass."""
    tree = make_tree(tmp_path / "tree", [9, 9])
    write_bundle(recipe_of(tree), [tmp_path / "plain"])
    unpack(tmp_path / "plain", tmp_path / "one", tells_case=lambda _: False)
    assert snapshot(tmp_path / "one") == snapshot(tree)
    (tree / "weights/README").write_text("a")
    (tree / "weights/readme").write_text("b")
    write_bundle(recipe_of(tree), [tmp_path / "colliding"])
    with pytest.raises(PreflightError, match="weights/README and weights/readme"):
        unpack(tmp_path / "colliding", tmp_path / "two", tells_case=lambda _: False)
