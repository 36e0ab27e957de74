"""The real pixi with a lock of several platforms: what was carried is what it installs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from bundler.common.progress import SILENT
from bundler.install.pixi import PixiInstaller, find_pixi
from bundler.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path

    from tests.install.conftest import Stage

DECLARED = (
    '[{ name = "old", platform = "linux-64", cuda = "12" }, '
    '{ name = "new", platform = "linux-64", cuda = "13" }, "linux-64"]'
)


@pytest.mark.pixi
@pytest.mark.parametrize(
    ("named", "present"),
    [("old", {"click"}), ("new", {"packaging"}), ("linux-64", {"click", "packaging"})],
)
def test_the_platform_that_was_carried_is_installed(
    stage: Stage, pixi: Path, monkeypatch: pytest.MonkeyPatch, named: str, present: set[str]
) -> None:
    """Also the second one for CUDA, which no driver makes pixi take."""
    lock, manifest = stage.root / "pixi.lock", stage.root / "pixi.toml"
    manifest.write_text(manifest.read_text().replace('["linux-64"]', DECLARED))
    document = yaml.safe_load(lock.read_text())
    usual = document["platforms"][0]["virtual-packages"]
    for name, cuda in (("p1", 12), ("p2", 13)):
        rich = {"name": name, "subdir": "linux-64", "virtual-packages": [f"__cuda={cuda}", *usual]}
        document["platforms"].append(rich)
    packages = document["environments"]["extra"]["packages"]
    packages["p1"] = [one for one in packages["linux-64"] if "/packaging-" not in str(one)]
    packages["p2"] = [one for one in packages["linux-64"] if "/click-" not in str(one)]
    lock.write_text(yaml.safe_dump(document, sort_keys=False))
    monkeypatch.setenv("BUNDLER_PIXI", str(pixi))
    monkeypatch.delenv("CONDA_OVERRIDE_CUDA", raising=False)
    environment = Workspace.load(stage.root, {"": named}).environment("extra")
    PixiInstaller(find_pixi()).install(stage.root, [environment], stage.store, SILENT)
    site = next((stage.root / ".pixi/envs/extra").glob("lib/python*/site-packages"))
    assert {name for name in ("click", "packaging") if (site / name).is_dir()} == present
