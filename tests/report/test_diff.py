"""What differs between bundles, installations and manifests."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from bundler.installation import Receipt, SeenFile, UnpackedBundle, write_receipt
from tests.archive.make import unpack
from tests.report.make import Made, make_bundle, model_of, wheel

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Bundler

KEPT, OLD, NEW = wheel("kept", "1"), wheel("moved", "1"), wheel("moved", "2", padding=b"x" * 1000)
GONE, FRESH = wheel("gone", "1"), wheel("fresh", "1")


@pytest.fixture
def before(tmp_path: Path) -> Path:
    (folder,) = make_bundle(tmp_path, [KEPT, OLD, GONE], name="before", model=model_of(revision="1" * 40))
    return folder


@pytest.fixture
def after(tmp_path: Path) -> Path:
    model = model_of(revision="2" * 40)
    (folder,) = make_bundle(tmp_path, [KEPT, NEW, FRESH], name="after", model=model, weights=b"other weights")
    return folder


def installed(bundle: Path, destination: Path, leave_out: tuple[str, ...] = ()) -> Path:
    """Unpack a bundle and write a receipt, which doesn't name what lies below some folders."""
    unpacked: Any = unpack(bundle, destination)
    seen = tuple(file for file in unpacked.files if not file.path.startswith(leave_out or ("//",)))
    entry = UnpackedBundle(
        name="b", manifest_sha256=unpacked.manifest_sha256, bundler="0", finished="now", checked="all"
    )
    write_receipt(destination, Receipt(bundles=(entry,), files=seen))
    assert all(isinstance(file, SeenFile) for file in seen)
    return destination


def compare(bundler: Bundler, one: Path, other: Path) -> dict[str, Any]:
    done = bundler("diff", one, other, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def size(*made: Made) -> int:
    return sum(len(one.data) for one in made)


def test_two_bundles(bundler: Bundler, before: Path, after: Path) -> None:
    found = compare(bundler, before, after)
    assert [(one["change"], one["name"], one["before"], one["after"]) for one in found["packages"]] == [
        ("added", "fresh", None, "1"),
        ("removed", "gone", "1", None),
        ("changed", "moved", "1", "2"),
    ]
    (model,) = found["models"]
    assert (model["change"], model["files"], model["bytes"]) == ("changed", 1, len(b"other weights"))
    assert found["files"]["added"] == sorted([NEW.path, FRESH.path])
    assert found["files"]["removed"] == sorted([OLD.path, GONE.path])
    assert found["files"]["changed"] == ["weights/small/model.safetensors"]
    assert found["after_bytes"] - found["before_bytes"] == size(NEW, FRESH) - size(OLD, GONE) + 6
    assert found["delta"] == {
        "files": 3,
        "bytes": size(NEW, FRESH) + 13,
        "whole": size(NEW, FRESH, KEPT) + 13,
    }


def test_in_words(bundler: Bundler, before: Path, after: Path) -> None:
    said = bundler("diff", before, after).stdout
    assert "packages: 1 added, 1 removed, 1 changed" in said
    assert "  ~ default: wheel moved 1 → 2" in said
    assert f"  ~ small huggingface:owner/small @ {'1' * 40} → huggingface:owner/small @ {'2' * 40}" in said
    assert "a delta would carry" in said


def test_a_bundle_and_itself(bundler: Bundler, packed: Path) -> None:
    said = bundler("diff", packed, packed).stdout
    assert "packages: no difference" in said and "models: no difference" in said
    assert "files: no difference" in said and "a delta would carry 0 B" in said


def test_a_manifest_alone_an_installation_and_its_bundle_are_the_same(
    bundler: Bundler, before: Path, tmp_path: Path
) -> None:
    place = installed(before, tmp_path / "installed")
    alone = shutil.copy(before / "manifest.json", tmp_path / "carried.json")
    for one, other in ((place, before), (alone, place), (before, alone)):
        found = compare(bundler, one, other)
        assert not found["packages"] and not found["models"] and not found["files"]["added"]
        assert found["delta"]["files"] == 0


def test_a_pruned_store_isn_t_there_to_build_on(bundler: Bundler, before: Path, tmp_path: Path) -> None:
    place = installed(before, tmp_path / "installed", leave_out=(".pkg-cache",))
    assert compare(bundler, place, before)["delta"]["bytes"] == size(KEPT, OLD, GONE)


def test_what_moved_is_not_carried_again(bundler: Bundler, before: Path, tmp_path: Path) -> None:
    """A file is known by its content, wherever it lies."""
    elsewhere = Made("wheel", "kept", "1", KEPT.data, KEPT.path.replace("ab/cd", "ef"))
    (folder,) = make_bundle(tmp_path, [elsewhere], name="other")
    found = compare(bundler, before, folder)
    assert found["files"]["added"] == [elsewhere.path]
    assert found["delta"]["files"] == 0


@pytest.mark.parametrize("what", ["empty", "text", "json", "damaged", "unfinished"])
def test_what_is_none_is_refused(bundler: Bundler, before: Path, tmp_path: Path, what: str) -> None:
    place = tmp_path / what
    place.mkdir()
    if what in ("text", "json"):
        place = place / "file"
        place.write_text("no JSON" if what == "text" else '{"format": 1, "name": "x"}')
    elif what == "damaged":
        place = before
        data = (place / "manifest.json").read_bytes()
        (place / "manifest.json").write_bytes(data.replace(b'"gone"', b'"gune"'))
    elif what == "unfinished":
        (place / ".bundler").mkdir()
        (place / ".bundler/journal").write_bytes(b"")
    done = bundler("diff", place, place)
    assert done.returncode == (5 if what == "damaged" else 3)
    assert done.stderr.startswith("error: ") and "fix:" in done.stderr and "Traceback" not in done.stderr
