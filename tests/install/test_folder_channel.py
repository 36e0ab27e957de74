from __future__ import annotations

import re
import shutil
import struct
from typing import TYPE_CHECKING

import pytest

from bundler.common.progress import SILENT
from bundler.errors import InstallError
from bundler.install.folder_channel import seed
from bundler.install.native import NativeInstaller
from bundler.install.pixi import PixiInstaller, find_pixi
from bundler.install.sanity import Imports, check_imports
from bundler.workspace import Workspace
from tests.install.conftest import leave_md5_alone
from tests.support.workspace import CHANNEL

if TYPE_CHECKING:
    from pathlib import Path

    from tests.install.conftest import Stage

NOWHERE = "file:///srv/nowhere/channel/"
ENTRY = re.compile(rf"- conda: {NOWHERE}([^/]+)/(.+?)-([^-]+)-([^-]+?)(\.conda|\.tar\.bz2)\n")


@pytest.fixture
def folder_stage(stage: Stage) -> Stage:
    """Return a stage whose channel is a folder that isn't there, as on a host that only has the bundle."""
    lock = stage.root / "pixi.lock"
    head, _, body = lock.read_text().replace(CHANNEL, NOWHERE).partition("\npackages:")
    stated = "{0}  name: {2}\n  version: '{3}'\n  build: {4}\n  build_number: 0\n  subdir: {1}\n"
    body = ENTRY.sub(lambda found: stated.format(found[0], *found.groups()), body)
    lock.write_text(f"{head}\npackages:{body}")
    before = {
        a.filename: stage.store.path(a.url)
        for one in stage.workspace.environments.values()
        for a in one.artifacts
    }
    stage.workspace = Workspace.load(stage.root)
    (stage.root / ".pixi/config.toml").unlink()
    for environment in stage.workspace.environments.values():
        for artifact in environment.artifacts:
            path = stage.store.path(artifact.url)
            if artifact.url.startswith("file:") and not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(before[artifact.filename], path)
    return stage


def check(stage: Stage) -> None:
    prefix = stage.root / ".pixi/envs/default"
    assert check_imports(prefix, Imports(wanted=("click", "tqdm")))
    assert (prefix / "bin/demo-notes").exists()
    assert not any("python-" in line for line in stage.asked())


def test_native_installs_a_channel_in_a_folder(folder_stage: Stage) -> None:
    environments = folder_stage.environments("default")
    NativeInstaller.find().install(folder_stage.root, environments, folder_stage.store, SILENT)
    check(folder_stage)


def test_native_installs_a_folders_packages_by_their_md5(folder_stage: Stage) -> None:
    leave_md5_alone(folder_stage)
    environments = folder_stage.environments("default")
    NativeInstaller.find().install(folder_stage.root, environments, folder_stage.store, SILENT)
    check(folder_stage)


@pytest.mark.pixi
def test_pixi_installs_a_folders_packages_by_their_md5(
    folder_stage: Stage, pixi: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUNDLER_PIXI", str(pixi))
    leave_md5_alone(folder_stage)
    environments = folder_stage.environments("default")
    PixiInstaller(find_pixi()).install(folder_stage.root, environments, folder_stage.store, SILENT)
    check(folder_stage)


@pytest.mark.pixi
def test_pixi_installs_a_channel_in_a_folder(
    folder_stage: Stage, pixi: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUNDLER_PIXI", str(pixi))
    environments = folder_stage.environments("default")
    PixiInstaller(find_pixi()).install(folder_stage.root, environments, folder_stage.store, SILENT)
    check(folder_stage)


def test_the_hash_is_checked_before_anything_is_unpacked(folder_stage: Stage, tmp_path: Path) -> None:
    path = folder_stage.artifact("demo-notes")
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    (environment,) = folder_stage.environments("default")
    with pytest.raises(InstallError, match="not what the lock promises"):
        seed([a for a in environment.artifacts if a.name == "demo-notes"], folder_stage.store, tmp_path)
    assert not (tmp_path / "demo-notes-0.9-demo_0").exists()


def test_an_entry_of_another_hash_is_replaced(folder_stage: Stage, tmp_path: Path) -> None:
    (environment,) = folder_stage.environments("default")
    notes = [a for a in environment.artifacts if a.name == "demo-notes"]
    assert seed(notes, folder_stage.store, tmp_path) == 1
    entry, lock = tmp_path / "demo-notes-0.9-demo_0", tmp_path / "demo-notes-0.9-demo_0.lock"
    assert lock.read_bytes() == struct.pack(">Q", 1) + bytes.fromhex(str(notes[0].sha256))
    (entry / "mine").touch()
    seed(notes, folder_stage.store, tmp_path)
    assert (entry / "mine").exists()
    lock.write_bytes(struct.pack(">Q", 4) + bytes(32))
    seed(notes, folder_stage.store, tmp_path)
    assert not (entry / "mine").exists()
    assert (entry / "info/index.json").exists()
