"""What ``clean`` frees is what nothing here names, and nothing else."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from bundler.cli.clean import clean_command
from bundler.common.progress import SILENT
from bundler.errors import InputError, UnknownNameError
from bundler.store import Store
from bundler.work.clean import clean
from bundler.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MadeWorkspace


@pytest.fixture
def root(filled_workspace: MadeWorkspace) -> Path:
    return filled_workspace.root


def files(root: Path) -> set[str]:
    """Return the mirror's files."""
    mirror = root / ".pkg-cache/mirror"
    return {path.relative_to(mirror).as_posix() for path in mirror.rglob("*") if path.is_file()}


def plant(path: Path, size: int = 5000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(size))
    return path


def test_a_store_of_this_lock_alone_has_nothing_to_free(root: Path) -> None:
    before = files(root)
    assert clean(root, reporter=SILENT) == []
    assert files(root) == before


def test_what_an_older_lock_named_goes(root: Path) -> None:
    before = files(root)
    store = Store.of(root)
    old = plant(store.root / "mirror/files.test/old/torch-1.0-py3-none-any.whl")
    plant(old.with_name("x.whl.partial"))
    used = next(one for one in Workspace.load(root).environment("default").artifacts if one.kind == "wheel")
    under_way = plant(store.path(used.url).with_name(used.filename + ".partial"))
    conda, uv = store.root / "conda/rattler/pkgs", store.root / "pypi/uv/archive-v0"
    plant(conda / "old-1.0-0/lib/x")
    plant(conda / "old-1.0-0.lock", 8)
    named = next(one for one in Workspace.load(root).environment("default").artifacts if one.kind == "conda")
    plant(conda / named.filename.removesuffix(".conda") / "x")
    plant(uv / "a/torch-1.0.dist-info/METADATA")
    plant(uv / f"b/{used.name}-{used.version}.dist-info/METADATA")
    plant(store.root / "rehearsal-999999999-x/file")
    said = clean(root, dry_run=True, reporter=SILENT)
    assert [(one.what, len(one.paths)) for one in said] == [
        ("artifacts that the lock doesn't name", 2),
        ("what ended rehearsals left", 1),
        ("unpacked conda packages that the lock doesn't name", 2),
        ("unpacked wheels that the lock doesn't name", 1),
    ]
    assert old.exists()
    assert [one.what for one in clean(root, reporter=SILENT)] == [one.what for one in said]
    assert files(root) == before | {under_way.relative_to(store.root / "mirror").as_posix()}
    assert not old.parent.exists()
    assert [path.name for path in uv.iterdir()] == ["b"]
    assert [path.name for path in conda.iterdir()] == [named.filename.removesuffix(".conda")]
    assert clean(root, reporter=SILENT) == []


def test_only_the_environments_that_are_kept_and_bundlers_own_stay(root: Path) -> None:
    workspace = Workspace.load(root)
    store = Store.of(root)
    clean(root, ["extra"], reporter=SILENT)
    kept = [one for name in ("extra", "bundler") for one in workspace.environment(name).artifacts]
    gone = {one.url for one in workspace.environment("default").artifacts} - {one.url for one in kept}
    assert gone and store.missing(kept) == []
    assert not any(store.root.joinpath(store.relative(url)).exists() for url in gone)
    with pytest.raises(UnknownNameError):
        clean(root, ["no-such"], reporter=SILENT)


def test_a_file_with_a_name_elsewhere_frees_nothing(root: Path, tmp_path: Path) -> None:
    old = plant(root / ".pkg-cache/mirror/files.test/old-1-py3-none-any.whl", 50_000)
    os.link(old, tmp_path / "other-name")
    (one,) = clean(root, dry_run=True, reporter=SILENT)
    assert one.size == 0
    (tmp_path / "other-name").unlink()
    (one,) = clean(root, dry_run=True, reporter=SILENT)
    assert one.size >= 50_000


def test_models_without_a_manifest_are_said_and_go_only_when_wanted(root: Path) -> None:
    named, other = plant(root / "weights/GLM-4.7/x"), plant(root / "weights/other/x")
    (one,) = clean(root, reporter=SILENT)
    assert (one.kept, "model other" in one.what) == (True, True)
    assert other.exists()
    (one,) = clean(root, weights=True, reporter=SILENT)
    assert named.exists() and not other.parent.exists()


def test_the_caches_go_whole_when_wanted(root: Path) -> None:
    cached = plant(root / ".pkg-cache/pypi/uv/wheels-v8/x")
    before = files(root)
    clean(root, caches=True, reporter=SILENT)
    assert not cached.exists()
    assert files(root) == before


def test_a_store_that_others_use_and_an_installation_are_left_alone(root: Path, tmp_path: Path) -> None:
    (root / ".bundler").mkdir()
    (root / ".bundler/receipt.json").write_text("{}")
    with pytest.raises(InputError, match="an installation"):
        clean(root, reporter=SILENT)
    shutil.rmtree(root / ".bundler")
    (root / ".pkg-cache").rename(tmp_path / "shared")
    (root / ".pkg-cache").symlink_to(tmp_path / "shared")
    with pytest.raises(InputError, match="is a link"):
        clean(root, reporter=SILENT)


def test_the_command(root: Path) -> None:
    plant(root / ".pkg-cache/mirror/files.test/old-1-py3-none-any.whl")
    done = CliRunner().invoke(clean_command, ["-C", str(root), "--dry-run"], catch_exceptions=False)
    assert "artifacts that the lock doesn't name: 1" in done.output
    assert "would be freed" in done.output
    CliRunner().invoke(clean_command, ["-C", str(root)], catch_exceptions=False)
    done = CliRunner().invoke(clean_command, ["-C", str(root)], catch_exceptions=False)
    assert done.stdout == "nothing to free\n"
