"""Borders of the system: few files, long names, deep trees, many volumes. Each is a message or a success."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bundler.archive import volume_reader
from bundler.archive.bundle import Bundle
from bundler.archive.writer import write_bundle
from tests.archive.make import content, make_tree, recipe_of, snapshot
from tests.conftest import shared
from tests.hostile.nursery import Nursery
from tests.hostile.test_bundles import faults
from tests.hostile.workshop import Row, Workshop, make_bundle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.hostile.nursery import Ended

FEW = 64
"""Files that a process may have open where an administrator is strict."""


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    one = Nursery()
    yield one
    one.close()


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with ``tree``, and ``bundle`` of a thousand volumes and parity."""

    def make(folder: Path) -> Path:
        tree = make_tree(folder / "tree", (3_000_000, 3_000_000, 513))
        recipe = recipe_of(tree, frame_size=4096, volume_size=4200, parity=1)
        assert len(write_bundle(recipe, [folder / "bundle"]).volumes) > 1000
        return folder

    return shared(tmp_path_factory, "many-volumes", make)


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    make_bundle(tmp_path)
    return Workshop(tmp_path).open()


def ended(done: Ended, code: int, *words: str) -> None:
    """Check that a command ended in order: with this code, these words, and nothing that no user can use."""
    assert not faults("it", done), done.said
    assert done.code == code, done.said
    assert all(word in done.said for word in words), done.said


def test_a_thousand_volumes_with_few_files_open(many: Path, nursery: Nursery, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(many / "bundle", bundle)
    threads = ("--threads", "16")
    ended(nursery.run("inspect", bundle, cwd=tmp_path, files=FEW), 0, "frames")
    ended(nursery.run("verify", *threads, bundle, cwd=tmp_path, files=FEW), 0, "sound, 3 files")
    ended(nursery.run("unpack", *threads, bundle, "out", cwd=tmp_path, files=FEW), 0)
    assert snapshot(tmp_path / "out") == snapshot(many / "tree")
    lost = [bundle / f"data-{number:05}.tar.zst" for number in (1, 500, 900)]
    for path in lost:
        path.unlink()
    ended(nursery.run("repair", bundle, cwd=tmp_path, files=FEW), 0, "mended data-00001.tar.zst")
    assert all(path.read_bytes() == (many / "bundle" / path.name).read_bytes() for path in lost)


def test_a_pack_of_a_thousand_volumes_with_few_files_open(many: Path, tmp_path: Path) -> None:
    script = (
        "import resource, sys; from pathlib import Path; from tests.archive.make import recipe_of;"
        "from bundler.archive.writer import write_bundle;"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({FEW}, {FEW}));"
        "write_bundle(recipe_of(Path(sys.argv[1]), frame_size=4096, volume_size=4200, parity=1),"
        " [Path(sys.argv[2])], threads=16)"
    )
    subprocess.run([sys.executable, "-c", script, many / "tree", tmp_path / "b"], check=True)
    sums = [(folder / "SHA256SUMS").read_bytes() for folder in (tmp_path / "b", many / "bundle")]
    assert sums[0] == sums[1]


def test_volumes_are_open_while_they_are_used(many: Path) -> None:
    """However many there are, and however many are read at once."""
    folder = Path("/proc/self/fd")
    before = len([*folder.iterdir()])
    with Bundle.open([many / "bundle"]) as bundle:
        assert len(bundle.volumes) > 1000
        for number in range(0, 1000, 7):
            bundle.content(number)
        assert len([*folder.iterdir()]) <= before + volume_reader.MOST_OPEN
    # Fewer, where another test of this process left a bundle open: its files made room.
    assert len([*folder.iterdir()]) <= before


@pytest.mark.parametrize(("depth", "code"), [(254, 0), (255, 3), (1000, 3)])
def test_trees_that_go_down(workshop: Workshop, nursery: Nursery, depth: int, code: int) -> None:
    """As deep as is allowed it is unpacked, verified and unpacked again; deeper is refused, also at pack."""
    rows: list[Row] = [("weights", "dir", b"", "")]
    rows += [("weights" + "/d" * level, "dir", b"", "") for level in range(1, depth)]
    workshop.rebuild([*rows, (f"{rows[-1][0]}/f", "file", b"x", "")])
    home = workshop.home
    words = () if code == 0 else ("is too deep: ",)
    for command in (("verify", "bundle"), ("unpack", "bundle", "out"), ("unpack", "bundle", "out")):
        ended(nursery.run(*command, cwd=home), code, *words)
    if code == 0:
        ended(nursery.run("verify", "--deep", "out", cwd=home), 0)


def test_a_pack_of_what_is_too_deep_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tree" / "/".join("d" * 300)).mkdir(parents=True)
    script = (
        "import sys; from pathlib import Path; from tests.archive.make import recipe_of;"
        "from bundler.archive.writer import write_bundle; from bundler.errors import InputError\n"
        "try: write_bundle(recipe_of(Path(sys.argv[1])), [Path(sys.argv[2])])\n"
        "except InputError as problem: print(problem)"
    )
    command = [sys.executable, "-c", script, tmp_path / "tree", tmp_path / "b"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "is too deep: " in done.stdout


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("x" * 256, "its name is too long"),
        ("x" * 255 + "/" + "y" * 256, "its name is too long"),
        ("loop", "a link in a circle"),
        ("loop/below", "a link in a circle"),
        ("file/below", "is not a folder"),
        ("/".join(["z" * 250] * 16), "too long"),
    ],
)
def test_destinations_that_cannot_be(workshop: Workshop, nursery: Nursery, place: str, words: str) -> None:
    home = workshop.home
    (home / "loop").symlink_to("loop")
    (home / "file").touch()
    for options in ((), ("--dry-run",), ("--partial",)):
        code = 8 if place.startswith("file") else 9
        ended(nursery.run("unpack", *options, "bundle", place, cwd=home), code, words, "fix: ")


def test_bundles_that_cannot_be(nursery: Nursery, tmp_path: Path) -> None:
    """Names that lead nowhere, in place of a bundle or an installation."""
    (tmp_path / "loop").symlink_to("loop")
    for place in ("loop", "x" * 256, "x" * 5000):
        for words in (("unpack", place, "out"), ("verify", place), ("inspect", place), ("repair", place)):
            done = nursery.run(*words, cwd=tmp_path)
            assert not faults("it", done) and done.code in (2, 3, 9), done.said


def test_long_names_are_unpacked_where_they_fit(nursery: Nursery, workshop: Workshop) -> None:
    name = "weights/" + "n" * 255
    workshop.rebuild([("weights", "dir", b"", ""), (name, "file", content(3000, 1), "")])
    ended(nursery.run("unpack", "bundle", "d" * 255, cwd=workshop.home), 0)
    assert (workshop.home / ("d" * 255) / name).read_bytes() == content(3000, 1)
