"""Bundles that are none, damaged, or here in part: what can be read is told, the rest is named."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from bundler.archive.bundle import Bundle
from bundler.report.checks import checks_of
from bundler.report.inventory import take_inventory
from tests.archive.make import content, flip
from tests.report.make import Made, conda, make_bundle, wheel

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Bundler

COMMANDS = (("report", "-o", "out.html"), ("licenses",), ("report", "--sbom", "spdx", "-o", "out.html"))


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Return a bundle of two wheels, each in a volume of its own."""
    packages = [
        wheel(name, "1", "License-Expression: MIT", padding=content(76_000, seed, "random"))
        for seed, name in enumerate(("first", "second"))
    ]
    (folder,) = make_bundle(tmp_path, packages, volume_size=20_000)
    assert len(list(folder.glob("data-*"))) > 1
    return folder


def volumes_of(bundle: Path, name: str, pattern: str = "/{}-") -> list[Path]:
    """Return the volumes that hold a package's file, in order."""
    with Bundle.open([bundle]) as opened:
        (place,) = [n for n, one in enumerate(opened.manifest.tree) if pattern.format(name) in one.path]
        frames = [opened.layout.frame(number) for number in opened.layout.of_file(place)]
        return [bundle / opened.manifest.volumes[frame.volume].name for frame in frames]


@pytest.mark.parametrize("words", COMMANDS)
def test_a_folder_that_is_no_bundle(bundler: Bundler, tmp_path: Path, words: tuple[str, ...]) -> None:
    done = bundler(*words, tmp_path)
    assert done.returncode == 3
    assert "no bundle here" in done.stderr and "fix:" in done.stderr
    assert not (tmp_path / "out.html").exists()


@pytest.mark.parametrize("words", COMMANDS)
def test_a_volume_that_is_not_here(
    bundler: Bundler, two: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    """As of a disk that isn't in: the others are told, and the exit code is that of a partial work."""
    gone = volumes_of(two, "second")[-1]
    gone.unlink()
    done = bundler(*words, two)
    assert done.returncode == 7, done.stderr
    assert gone.name in done.stderr
    said = done.stdout + ((tmp_path / "out.html").read_text() if "-o" in words else "")
    assert "MIT" in said
    assert gone.name in said or words == ("licenses",)


@pytest.mark.parametrize("words", COMMANDS)
def test_a_damaged_volume(bundler: Bundler, two: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    victim = volumes_of(two, "second")[-1]
    flip(victim, victim.stat().st_size - 200)
    done = bundler(*words, two)
    assert done.returncode == 5, done.stderr
    assert victim.name in done.stderr and "second" in done.stderr
    assert "MIT" in done.stdout + ((tmp_path / "out.html").read_text() if "-o" in words else "")


def test_the_sheet_tells_damage_that_only_verify_finds(bundler: Bundler, two: Path, tmp_path: Path) -> None:
    """In the middle of a wheel, where no metadata lies."""
    victim = volumes_of(two, "second")[1]
    flip(victim, 50)
    calm = bundler("report", two, "-o", "calm.html")
    assert calm.returncode == 0, calm.stderr
    assert "not compared for this sheet" in (tmp_path / "calm.html").read_text()
    done = bundler("report", two, "-o", "out.html", "--verify")
    assert done.returncode == 5, done.stderr
    page = (tmp_path / "out.html").read_text()
    assert "compared just now: little is damaged" in page and victim.name in page


def test_a_package_that_is_none(bundler: Bundler, tmp_path: Path) -> None:
    """Its bytes are what the bundle says, and no wheel: it is named, and the rest is read."""
    fake = Made("wheel", "fake", "1", b"not a zip", ".pkg-cache/mirror/example.org/fake-1-py3-none-any.whl")
    (folder,) = make_bundle(tmp_path, [fake, wheel("good", "1", "License-Expression: MIT")])
    done = bundler("licenses", folder, "--json")
    assert done.returncode == 5
    assert "fake 1: its metadata can't be read" in done.stderr
    records = {one["name"]: one for one in json.loads(done.stdout)["packages"]}
    assert records["good"]["expression"] == "MIT"
    assert records["fake"]["concerns"] == ["unknown"] and "can't be read" in records["fake"]["problem"]


def test_a_lock_that_is_not_here(bundler: Bundler, bundle: Path) -> None:
    """Without it nobody knows what the runtime was made of; that is no damage."""
    gone, *others = dict.fromkeys(volumes_of(bundle, "pixi.lock", "{}"))
    assert not others
    gone.unlink()
    done = bundler("licenses", bundle)
    assert done.returncode == 7, done.stderr
    assert gone.name in done.stderr
    assert "  uv " not in done.stdout, "which only the runtime has"


def test_a_wheel_without_a_publisher_s_hash_is_told(tmp_path: Path) -> None:
    packages = [wheel("known", "1"), wheel("loose", "1")]
    lock = "version: 6\npackages:\n" + "".join(
        f"- pypi: https://files.pythonhosted.org/packages/ab/cd/{one.path.rpartition('/')[2]}\n{extra}"
        for one, extra in zip(packages, ("  sha256: " + "0" * 64 + "\n", ""), strict=True)
    )
    (folder,) = make_bundle(tmp_path, packages, lock=lock.encode())
    with Bundle.open([folder]) as opened:
        inventory = take_inventory(opened)
        (check,) = [one for one in checks_of(inventory, None) if one.name == "publishers' hashes"]
    assert (check.state, check.text) == ("partly", "the lock names none for loose: allowed when packed")


def test_a_conda_package_without_any_hash_is_told(tmp_path: Path) -> None:
    packages = [conda("known", "1", {}, {}), conda("loose", "1", {}, {})]
    lock = "version: 6\npackages:\n" + "".join(
        f"- conda: https://conda.example:8443/forge/linux-64/{one.path.rpartition('/')[2]}\n{extra}"
        for one, extra in zip(packages, ("  md5: " + "0" * 32 + "\n", ""), strict=True)
    )
    (folder,) = make_bundle(tmp_path, packages, lock=lock.encode(), md5_only=(packages[0].path,))
    with Bundle.open([folder]) as opened:
        inventory = take_inventory(opened)
    assert (inventory.unhashed, inventory.md5_only) == (("loose",), ("known",))


def test_a_package_that_an_md5_alone_fixes_is_told(tmp_path: Path) -> None:
    old = conda("old", "1", {}, {})
    (folder,) = make_bundle(tmp_path, [old], md5_only=(old.path,))
    with Bundle.open([folder]) as opened:
        (check,) = [
            one for one in checks_of(take_inventory(opened), None) if one.name == "publishers' hashes"
        ]
    assert (check.state, check.text) == (
        "partly",
        "the lock names an md5 alone for old: compared with it when fetched",
    )


def test_a_runtime_of_other_bytes_isn_t_opened(packed: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(packed, tmp_path / "bundle")
    flip(folder / "runtime.tar.gz", 5000)
    with Bundle.open([folder]) as opened:
        inventory = take_inventory(opened)
    assert all(one.environments for one in inventory.packages)
    assert inventory.damaged == ("runtime.tar.gz is not the one that SHA256SUMS names",)


def test_disks_together_are_one_bundle(bundler: Bundler, two: Path, tmp_path: Path) -> None:
    other = shutil.copytree(two, tmp_path / "disk2" / two.name)
    first, *rest = sorted(two.glob("data-*"))
    first.unlink()
    for volume in rest:
        (other / volume.name).unlink()
    done = bundler("report", two, other, "-o", "-")
    assert done.returncode == 0, done.stderr
    assert "each of its size" in done.stdout


def test_the_sheet_never_lies_in_the_bundle_itself(bundler: Bundler, two: Path) -> None:
    """There `verify` would find a file that nobody listed."""
    done = bundler("report", cwd=two)
    assert done.returncode == 2
    assert "bundle's own folder" in done.stderr and "-o FILE" in done.stderr
    assert bundler("verify", two).returncode == 0
