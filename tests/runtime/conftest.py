"""What the runtime's tests share: a runtime of the demo's environment ``bundler``, and bundles around it."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bundler.manifest import Runtime
from bundler.runtime import build
from bundler.runtime.build import build_runtime, install_script
from bundler.store import Store
from bundler.workspace import Workspace
from tests.conftest import shared

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.workspace import DemoWorkspace


@dataclass(frozen=True)
class BuiltRuntime:
    """A runtime with its facts and the store it was made from."""

    archive: Path
    facts: Runtime
    store: Path


@pytest.fixture(scope="session")
def own_code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Take bundler's own wheel once, so that a file that is edited meanwhile doesn't change the runtime."""

    def make(folder: Path) -> Path:
        return build.own_wheel(folder)

    wheel = shared(tmp_path_factory, "own-wheel", make)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "own_wheel", lambda folder: Path(shutil.copy(wheel, folder)))
        yield wheel


@pytest.fixture(scope="session")
def built_runtime(
    tmp_path_factory: pytest.TempPathFactory, demo_workspace: DemoWorkspace, demo_store: Path, own_code: Path
) -> BuiltRuntime:
    """Return a runtime made of the demo's environment ``bundler``; not to be changed."""

    def make(folder: Path) -> BuiltRuntime:
        # Its path is long and has a space: neither may be seen in the archive.
        store = folder / ("a store in a folder with a long name " * 4).strip() / ".pkg-cache"
        shutil.copytree(demo_store / "mirror", store / "mirror")
        workspace = Workspace.load(demo_workspace.root)
        archive = folder / "runtime.tar.gz"
        facts = build_runtime(workspace, Store(store), archive)
        return BuiltRuntime(archive, facts, store)

    return shared(tmp_path_factory, "runtime", make)


def write_small_bundle(folder: Path, archive: bytes | Path = b"no runtime", *, payload: int = 1000) -> Path:
    """Write a bundle as far as ``install.sh`` looks at it."""
    folder.mkdir(parents=True)
    if isinstance(archive, bytes):
        (folder / "runtime.tar.gz").write_bytes(archive)
    else:
        (folder / "runtime.tar.gz").hardlink_to(archive)
    (folder / "manifest.json").write_bytes(b"{}\n")
    facts = Runtime(source="a test", python="3", bundler="0", unpacked_bytes=200_000_000, inodes=1500)
    (folder / "install.sh").write_bytes(install_script(facts, payload))
    lines = [
        f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n"
        for name in ("install.sh", "manifest.json", "runtime.tar.gz")
    ]
    (folder / "SHA256SUMS").write_text("".join(lines))
    return folder


@pytest.fixture
def small_bundle(tmp_path: Path) -> Path:
    """Return a bundle whose runtime is none: enough for what ``install.sh`` refuses."""
    return write_small_bundle(tmp_path / "a bundle")


@pytest.fixture(scope="session")
def real_bundle(tmp_path_factory: pytest.TempPathFactory, built_runtime: BuiltRuntime) -> Path:
    """Return a bundle with a real runtime; not to be changed."""

    def make(folder: Path) -> Path:
        return write_small_bundle(folder / "disk 1" / "demo", built_runtime.archive)

    return shared(tmp_path_factory, "bundle", make)
