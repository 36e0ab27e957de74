"""Hostile bundles are refused in one message: nothing escapes, nothing hangs, nothing is a defect."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import shared
from tests.hostile.cases import CASES
from tests.hostile.cases.table import DAMAGED, REFUSED
from tests.hostile.nursery import HUNG, Nursery
from tests.hostile.workshop import Workshop, make_bundle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.hostile.cases import Case
    from tests.hostile.nursery import Ended

MOST_MEMORY = 450_000
"""KiB that a run may hold; the design's bound is 400 MB for sound bundles of any size."""
MOST_SAID = 200_000
"""Letters that a run may print."""
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared(tmp_path_factory, "hostile", make_bundle)


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    one = Nursery()
    yield one
    one.close()


@pytest.fixture
def workshop(made: Path, tmp_path: Path) -> Workshop:
    shutil.copytree(made, tmp_path / "bundle")
    one = Workshop(tmp_path).open()
    one.canary.mkdir()
    (one.canary / "kept").write_bytes(b"of somebody else\n")
    (one.canary / "folder").mkdir()
    return one


def seen(folder: Path) -> dict[str, tuple[object, ...]]:
    """Return all that is in a folder: links as themselves, of large files the size alone."""
    found: dict[str, tuple[object, ...]] = {}
    for path in [folder, *folder.rglob("*")]:
        status = path.lstat()
        told: object = status.st_size if not stat.S_ISDIR(status.st_mode) else None
        if stat.S_ISREG(status.st_mode) and status.st_size < 10**8:
            told = hashlib.sha256(path.read_bytes()).hexdigest()
        if stat.S_ISLNK(status.st_mode):
            told = str(path.readlink())
        found[str(path.relative_to(folder))] = (status.st_mode, status.st_ino, told)
    return found


def escapes(destination: Path) -> list[str]:
    """Return what in an installation leads out of it, or could do harm by what it is."""
    found = []
    for path in destination.rglob("*"):
        status = path.lstat()
        kind = stat.S_IFMT(status.st_mode)
        if kind not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
            found.append(f"escape: {path} is none of file, folder, link")
        elif kind == stat.S_IFLNK:
            landing = Path(os.path.realpath(path))
            if not landing.is_relative_to(os.path.realpath(destination)):
                found.append(f"escape: {path} leads to {landing}")
        elif stat.S_IMODE(status.st_mode) & 0o7022:
            found.append(f"escape: {path} has mode {status.st_mode:o}")
    return found


def faults(command: str, done: Ended) -> list[str]:
    """Return what is wrong with how a command ended, whatever the bundle."""
    found = []
    if done.code == HUNG:
        found.append(f"hang of {command}")
    elif done.defect:
        found.append(f"defect of {command}, code {done.code}")
    if done.peak > MOST_MEMORY:
        found.append(f"excess of {command}: {done.peak} KiB")
    if len(done.said) > MOST_SAID:
        found.append(f"excess of {command}: {len(done.said)} letters")
    if CONTROLS.search(done.said):
        found.append(f"escape of {command}: what commands a terminal")
    return found


@pytest.mark.timeout(200)
@pytest.mark.parametrize("case", CASES, ids=lambda case: re.sub(r"[^ -~]|/", "?", case.name)[:80])
def test_hostile_bundles(
    case: Case, workshop: Workshop, nursery: Nursery, record_property: Callable[[str, object], None]
) -> None:
    case.make(workshop)
    home = workshop.home
    bundle, canary = seen(workshop.bundle), seen(workshop.canary)
    ended: dict[str, Ended] = {}
    found: list[str] = []
    ways = {"inspect": (), "verify": ("--deep",), "unpack": ("out",)}
    for command, words in (ways | {"repair": ("--to", "mended")} if case.repair else ways).items():
        done = ended[command] = nursery.run(command, "bundle", *words, cwd=home)
        found += faults(command, done)
        if seen(workshop.canary) != canary or seen(workshop.bundle) != bundle:
            found.append(f"escape of {command}: the bundle or what lies beside it")
    for place in ("out", "mended"):
        found += escapes(home / place) if (home / place).is_dir() else []
    strangers = {path.name for path in home.iterdir()} - {"bundle", "canary", "out", "mended"}
    found += [f"escape: {name} was made" for name in sorted(strangers)]
    record_property("hostile", "; ".join(found))
    said = "\n".join(f"{command}: {done.code}\n{done.said[:1500]}" for command, done in ended.items())
    assert not found, f"{found}\n{said}"
    assert ended["unpack"].code in case.unpack, said
    assert ended["verify"].code in case.verify, said
    if ended["unpack"].code in REFUSED - DAMAGED and case.unpack <= REFUSED:
        assert not (home / "out").exists(), "what is refused is refused before anything is written"


def test_the_table_is_long_and_no_case_is_another() -> None:
    names = [case.name for case in CASES]
    assert len(names) >= 80
    assert len({case.make for case in CASES}) == len(CASES)


def test_a_sound_bundle_passes(workshop: Workshop, nursery: Nursery) -> None:
    """Without it the refusals would prove nothing; and so for one that is made again."""
    for rebuild in (False, True):
        if rebuild:
            workshop.rebuild()
            shutil.rmtree(workshop.home / "out")
        for words in (("inspect", "bundle"), ("verify", "bundle"), ("unpack", "bundle", "out")):
            done = nursery.run(*words, cwd=workshop.home)
            assert done.code == 0, done.said
            assert not faults(words[0], done)
    assert (workshop.home / "out/weights/a").read_bytes() == b"content of a\n"
