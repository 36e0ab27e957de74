"""A destination that another user prepared: nothing is written through what is planted, nothing hangs."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from bundler.archive.bundle import Bundle
from bundler.archive.unpack import unpack_bundle
from bundler.archive.writer import write_bundle
from bundler.common.durable import locked, read_plain, write_atomically
from bundler.errors import BundlerError, DamagedError, DestinationError, InputError
from bundler.installation import Installation, Receipt, UnpackedBundle, now, write_receipt
from tests.archive.make import make_tree, recipe_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEPT = b"of another user"
PLACES = (
    ".bundler",
    ".bundler/receipt.json.partial",
    ".bundler/receipt.json",
    ".bundler/bundles",
    ".bundler/journal",
    ".bundler/partial",
    ".bundler/cache",
    ".bundler/run",
    ".pixi",
    ".pixi/envs",
    "bin",
    "runtime",
)
KINDS = ("link to a file", "link to a folder", "link to nothing", "fifo")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write_bundle(recipe_of(make_tree(tmp_path / "tree", [70_000, 5])), [tmp_path / "bundle"])
    return tmp_path / "bundle"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What a link could lead to."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "file").write_bytes(KEPT)
    (folder / "folder").mkdir()
    return folder


def plant(path: Path, kind: str, outside: Path) -> None:
    """Put something where bundler would write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    else:
        name = {"link to a file": "file", "link to a folder": "folder", "link to nothing": "new"}[kind]
        path.symlink_to(outside / name)


def content(folder: Path) -> list[tuple[str, bytes]]:
    return sorted((path.name, path.read_bytes() if path.is_file() else b"") for path in folder.rglob("*"))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
def test_nothing_is_written_through_what_was_planted(
    place: str,
    kind: str,
    bundle: Path,
    outside: Path,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """It is refused in a message, or replaced; what it leads to stays as it was."""
    destination = tmp_path / "destination"
    (destination / ".bundler").mkdir(parents=True)
    if place == ".bundler":
        (destination / ".bundler").rmdir()
    plant(destination / place, kind, outside)
    before = content(outside)
    try:
        with Bundle.open([bundle]) as opened:
            done = unpack_bundle(opened, destination)
        receipt = Receipt(
            bundles=(
                UnpackedBundle(
                    name="b",
                    manifest_sha256=done.manifest_sha256,
                    bundler="1",
                    finished=now(),
                    checked="",
                ),
            )
        )
        write_receipt(destination, receipt)
        assert Installation(destination).manifests
    except BundlerError as problem:
        assert problem.hint or problem.findings
    record_property("planted", "" if content(outside) == before else place)
    assert content(outside) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
@pytest.mark.parametrize("place", [".bundler", "bin", ".bundler/bundles"])
def test_what_belongs_to_another_user_is_refused(place: str, bundle: Path, tmp_path: Path) -> None:
    """By its owner's number, with what to do."""
    destination = tmp_path / "destination"
    (destination / ".bundler").mkdir(parents=True)
    (destination / place).mkdir(exist_ok=True)
    os.chown(destination / place, 65534, 65534)
    with Bundle.open([bundle]) as opened, pytest.raises(DestinationError, match="another user") as caught:
        unpack_bundle(opened, destination)
    assert "65534" in str(caught.value)


def test_a_kept_manifest_is_compared_with_its_name(bundle: Path, tmp_path: Path) -> None:
    """Who alters it after the unpack is found out when it is read."""
    destination = tmp_path / "destination"
    with Bundle.open([bundle]) as opened:
        done = unpack_bundle(opened, destination)
    one = UnpackedBundle(
        name="b", manifest_sha256=done.manifest_sha256, bundler="1", finished=now(), checked=""
    )
    write_receipt(destination, Receipt(bundles=(one,)))
    assert Installation(destination).manifests[0].name == done.manifest.name
    kept = destination / ".bundler" / "bundles" / f"{done.manifest_sha256}.json"
    kept.write_bytes(kept.read_bytes().replace(b'"path', b'"path', 1) + b"\n")
    with pytest.raises(DamagedError, match="sha256"):
        _ = Installation(destination).manifests


@pytest.mark.timeout(20)
def test_a_fifo_is_no_bundle(bundle: Path) -> None:
    """Neither its manifest nor its sums are waited for."""
    for name in ("manifest.json", "SHA256SUMS"):
        kept = (bundle / name).read_bytes()
        (bundle / name).unlink()
        os.mkfifo(bundle / name)
        with pytest.raises(InputError, match=r"can't be read|no manifest|not a whole"):
            Bundle.open([bundle])
        (bundle / name).unlink()
        (bundle / name).write_bytes(kept)


@pytest.mark.timeout(20)
def test_small_files(outside: Path, tmp_path: Path) -> None:
    """Written beside what was planted, read only where plain, locked without waiting; modes by no umask."""
    path = tmp_path / "small.json"
    (tmp_path / "small.json.partial").symlink_to(outside / "file")
    before = os.umask(0o077)
    try:
        write_atomically(path, b"x")
    finally:
        os.umask(before)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"x", 0o644)
    assert (outside / "file").read_bytes() == KEPT
    with pytest.raises(OSError, match="too large"):
        read_plain(path, 0)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="not a plain file"):
        read_plain(tmp_path / "fifo")
    with locked(tmp_path / "lock", lambda: None):
        assert (tmp_path / "lock").exists()
    (tmp_path / "planted").symlink_to(outside / "new")
    with pytest.raises(OSError, match="symbolic links"), locked(tmp_path / "planted", lambda: None):
        pass
    assert not (outside / "new").exists()
    shutil.rmtree(outside)
