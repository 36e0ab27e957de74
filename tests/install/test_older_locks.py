"""Locks of versions 4 and 5, which pixi doesn't write any more and still installs from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from bundler.common.progress import SILENT
from bundler.install.native import NativeInstaller
from bundler.install.pixi import PixiInstaller, find_pixi
from bundler.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path

    from tests.install.conftest import Stage


def make_older(lock: Path, version: int) -> None:
    """Write a lock of version 7 as an older one."""
    document: dict[str, Any] = yaml.safe_load(lock.read_text())
    document = {"version": version, **{key: document[key] for key in ("environments", "packages")}}
    document["packages"] = [_older(one) for one in document["packages"]]
    lock.write_text(yaml.safe_dump(document, sort_keys=False))


def _older(package: dict[str, Any]) -> dict[str, Any]:
    if "pypi" in package:
        package.pop("index", None)
        return {"kind": "pypi", "url": package.pop("pypi"), **package}
    url = package.pop("conda")
    stem = url.rsplit("/", 1)[1].removesuffix(".conda").removesuffix(".tar.bz2")
    name, version, build = stem.rsplit("-", 2)
    facts = {"name": name, "version": version, "build": build, "subdir": url.split("/")[-2], "url": url}
    return {"kind": "conda", **facts, **package}


@pytest.mark.parametrize("version", [4, 5])
def test_natively(stage: Stage, version: int) -> None:
    make_older(stage.root / "pixi.lock", version)
    environment = Workspace.load(stage.root).environment("extra")
    NativeInstaller.find().install(stage.root, [environment], stage.store, SILENT)
    check(stage.root)


@pytest.mark.pixi
@pytest.mark.parametrize("version", [4, 5])
def test_by_the_real_pixi(stage: Stage, pixi: Path, monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    make_older(stage.root / "pixi.lock", version)
    monkeypatch.setenv("BUNDLER_PIXI", str(pixi))
    environment = Workspace.load(stage.root).environment("extra")
    before = (stage.root / "pixi.lock").read_bytes()
    PixiInstaller(find_pixi()).install(stage.root, [environment], stage.store, SILENT)
    assert (stage.root / "pixi.lock").read_bytes() == before
    check(stage.root)


def check(root: Path) -> None:
    site = next((root / ".pixi/envs/extra").glob("lib/python*/site-packages"))
    assert (site / "click").is_dir() and (site / "packaging").is_dir()
