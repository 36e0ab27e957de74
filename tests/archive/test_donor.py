"""Files taken over from an installation or a bundle: linked only where nobody writes to them any more."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
from pathlib import Path

import pytest

from bundler.archive import target as target_module
from bundler.archive.bundle import Bundle
from bundler.archive.donor import Donor
from bundler.archive.target import Target
from bundler.archive.unpack import Unpacked, unpack_bundle
from bundler.archive.writer import write_bundle
from bundler.installation import Installation, Receipt, write_receipt
from bundler.manifest import Entry
from tests.archive.make import flip, make_tree, recipe_of, snapshot

FILE = "weights/m0/file-6"


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """Return a folder with ``old``, a bundle; ``installed``, where it is unpacked; and ``bundle``.

    ``bundle`` has the old files, all at other places of its stream, and one more.
    """
    tree = make_tree(tmp_path / "tree")
    for number in (1, 2):
        (tree / f"weights/twin-{number}").write_bytes(bytes([number]) * 50_000)
    write_bundle(recipe_of(tree), [tmp_path / "old"])
    with Bundle.open([tmp_path / "old"]) as old:
        done = unpack_bundle(old, tmp_path / "installed")
    write_receipt(tmp_path / "installed", Receipt(files=done.files))
    (tree / "weights" / "a-first").write_bytes(b"new" * 9999)
    write_bundle(recipe_of(tree), [tmp_path / "bundle"])
    return tmp_path


def unpack_with(donor: Donor, scene: Path, to: str = "to") -> Unpacked:
    with Bundle.open([scene / "bundle"]) as bundle:
        return unpack_bundle(bundle, scene / to, donor=donor)


def content(folder: Path) -> dict[str, bytes]:
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and ".bundler" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def without_clones(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> int:
        raise OSError(errno.EOPNOTSUPP, "played: no clones here")

    monkeypatch.setattr(fcntl, "ioctl", refused)


def test_out_of_the_volumes_of_an_older_bundle(scene: Path) -> None:
    """Byte for byte as unpacked; of the new bundle's frames those alone are read that hold the new file."""
    with Bundle.open([scene / "old"]) as old:
        done = unpack_with(Donor(bundle=old), scene)
    assert snapshot(scene / "to") == snapshot(scene / "tree")
    assert done.written < 100_000


@pytest.mark.parametrize("harm", ["flipped", "missing", "lied"])
def test_what_an_older_bundle_cannot_give_comes_from_the_new_one(
    scene: Path, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = scene / "old" / "data-00002.tar.zst"
    if harm == "missing":
        volume.unlink()
    if harm == "flipped":
        flip(volume, 30_000)
    with Bundle.open([scene / "old"]) as old:
        donor = Donor(bundle=old)
        if harm == "lied":
            # Its manifest gives one file's digest to another of the same size.
            entries = [one for one in old.manifest.tree if one.path.startswith("weights/twin")]
            pairs = {(one.sha256, one.size): other for one, other in zip(entries, entries[::-1], strict=True)}
            monkeypatch.setattr(donor, "_stored", pairs)
        unpack_with(donor, scene)
    assert snapshot(scene / "to") == snapshot(scene / "tree")


def test_a_link_is_read_only_by_both_names(scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_clones(monkeypatch)
    unpack_with(Donor(Installation(scene / "installed")), scene)
    assert content(scene / "to") == content(scene / "tree")
    for place in (scene / "installed" / FILE, scene / "to" / FILE):
        assert place.stat().st_nlink == 2 and not place.stat().st_mode & 0o222, place
    new = (scene / "to/weights/a-first").stat()
    assert new.st_nlink == 1 and new.st_mode & 0o200, "what isn't linked is as it was unpacked"
    # Adopted without a journal, it stays read-only.
    shutil.rmtree(scene / "to" / ".bundler")
    with Bundle.open([scene / "bundle"]) as bundle:
        unpack_bundle(bundle, scene / "to")
    assert not (scene / "to" / FILE).stat().st_mode & 0o222


def test_what_another_user_can_write_to_is_copied(scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server may run as that user: this one can't take the right away, so that nothing is linked."""
    without_clones(monkeypatch)

    def refused(file: int, mode: int) -> None:
        if stat.S_IMODE(os.fstat(file).st_mode) & ~mode & 0o222:
            raise PermissionError(errno.EPERM, "played: another user's")

    monkeypatch.setattr(target_module.os, "fchmod", refused)
    (scene / "installed/weights/m0/file-3").chmod(0o444)
    unpack_with(Donor(Installation(scene / "installed")), scene)
    assert content(scene / "to") == content(scene / "tree")
    assert (scene / "to" / FILE).stat().st_nlink == 1
    assert (scene / "to/weights/m0/file-3").stat().st_nlink == 2, "nobody can write to this one"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_the_user_who_serves_cannot_write_to_a_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a user who owns both places: what opens a linked file for writing is refused."""
    without_clones(monkeypatch)
    digest = hashlib.sha256(b"weights").hexdigest()
    entry = Entry(path="new", kind="file", size=7, mode=0o644, sha256=digest, offset=0)
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        top.chmod(0o777)
        child = os.fork()
        if not child:
            os.setgroups([])
            os.setuid(65534)
            (top / "old").write_bytes(b"weights")
            with Target(top / "to") as target:
                target.take(entry, top / "old")
            try:
                (top / "to" / "new").open("r+b")
            except PermissionError:
                os._exit((top / "to" / "new").stat().st_nlink)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2


def test_taken_again_after_the_link_alone_was_made(scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the link and the mode: the next run adopts it, and makes it read-only."""
    without_clones(monkeypatch)
    (scene / "to/weights/m0").mkdir(parents=True)
    os.link(scene / "installed" / FILE, scene / "to" / FILE)
    unpack_with(Donor(Installation(scene / "installed")), scene)
    assert not (scene / "to" / FILE).stat().st_mode & 0o222
    with Target(scene / "to") as target:
        assert target.status(FILE) is not None
