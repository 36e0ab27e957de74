"""``verify`` and ``inspect`` as the user meets them, and the check of an installation."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from bundler.archive.writer import write_bundle
from bundler.cli.main import bundler_command
from bundler.errors import DamagedError, MissingVolumeError, UnknownNameError
from bundler.installation import Installation, Receipt, UnpackedBundle, write_receipt
from bundler.work.verify import verify_installation
from tests.archive.make import flip, make_tree, recipe_of, unpack

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a folder with ``bundle`` and ``installed``, its installation, beside each other."""
    write_bundle(recipe_of(make_tree(tmp_path / "sources/tree")), [tmp_path / "bundle"])
    unpacked: Any = unpack(tmp_path / "bundle", tmp_path / "installed")
    entry = UnpackedBundle(
        name="little",
        manifest_sha256=unpacked.manifest_sha256,
        bundler="0",
        finished="now",
        checked=unpacked.checked,
    )
    write_receipt(tmp_path / "installed", Receipt(bundles=(entry,), files=unpacked.files))
    return tmp_path


def call(*words: object) -> Result:
    return CliRunner().invoke(bundler_command, [str(word) for word in words])


def test_without_arguments_both_are_found(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the folder that holds bundle and installation."""
    monkeypatch.chdir(place)
    shown = call("inspect")
    assert "bundle little" in shown.stdout
    assert f"installation {place / 'installed'}" in shown.stdout
    checked = json.loads(call("verify", "--json").stdout)["subjects"]
    assert [record["ok"] for record in checked] == [True, True]
    monkeypatch.chdir(place / "sources")
    nothing = call("inspect")
    assert isinstance(nothing.exception, UnknownNameError)


def test_inspect_for_programs(place: Path) -> None:
    """Volumes, sizes and needs, of a bundle and of an installation."""
    found = json.loads(call("inspect", place / "bundle", place / "installed", "--json").stdout)
    (bundle,), (installation,) = found["bundles"], found["installations"]
    assert bundle["needs"]["payload_files"] == 9
    assert sum(volume["size"] for volume in bundle["volumes"]) == bundle["stored_bytes"]
    assert installation["receipt"]["files"] == 9


def test_verify_goes_on_after_the_first_damaged_subject(place: Path) -> None:
    """The exit code is the damage's, and the others are checked all the same."""
    flip(place / "bundle/data-00002.tar.zst", 1000)
    done = call("verify", "--json", place / "bundle", place / "installed")
    assert isinstance(done.exception, DamagedError)
    broken, sound = json.loads(done.stdout)["subjects"]
    assert not broken["ok"]
    assert any("data-00002" in finding for finding in broken["findings"])
    assert sound["ok"]


def test_a_part_of_a_bundle_is_sound_as_far_as_it_is_here(place: Path) -> None:
    """Some of the volumes: said, and a code of its own; none of them: nothing is sound."""
    bundle = place / "bundle"
    volumes = sorted(bundle.glob("data-*"))
    volumes[1].unlink()
    done = call("verify", "--partial", bundle)
    assert done.exit_code == 7
    assert f"sound as far as it's here: {len(volumes) - 1} of {len(volumes)} volumes" in done.stdout
    assert volumes[1].name in done.stdout
    for volume in volumes:
        volume.unlink(missing_ok=True)
    nothing = call("verify", "--partial", bundle)
    assert isinstance(nothing.exception, MissingVolumeError)
    assert "sound" not in nothing.stdout


@pytest.mark.parametrize("harm", ["delete", "shorten", "touch", "relink", "none"])
def test_the_quick_check_of_an_installation(place: Path, harm: str) -> None:
    """Sizes, times and links, without reading a file."""
    root = place / "installed"
    victim = root / "weights/m0/file-6"
    if harm == "delete":
        victim.unlink()
    elif harm == "shorten":
        victim.write_bytes(b"short")
    elif harm == "touch":
        os.utime(victim, (1, 1))
    elif harm == "relink":
        (root / "weights/link").unlink()
        (root / "weights/link").symlink_to("/etc/passwd")
    else:
        assert verify_installation(Installation(root)).files == 9
        return
    with pytest.raises(DamagedError, match="link" if harm == "relink" else "file-6"):
        verify_installation(Installation(root))


def test_the_deep_check_finds_what_rotted(place: Path) -> None:
    """Size and time are the same; only reading tells."""
    root = place / "installed"
    victim = root / "weights/m0/file-6"
    times = victim.stat()
    flip(victim, 4000)
    os.utime(victim, ns=(times.st_atime_ns, times.st_mtime_ns))
    verify_installation(Installation(root))
    with pytest.raises(DamagedError, match="file-6 differs from its sha256"):
        verify_installation(Installation(root), deep=True)
    victim.unlink()
    unpack(place / "bundle", root)
    assert verify_installation(Installation(root), deep=True, threads=7).bytes > 500_000
