"""The runtime: made of real parts, the same bytes from the same inputs, refused where it wouldn't run."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import bundler
from bundler.errors import InputError, InstallError
from bundler.runtime import build as module
from bundler.runtime.build import build_runtime
from bundler.store import Store
from bundler.workspace import Workspace, required_environments
from tests.conftest import PROJECT

if TYPE_CHECKING:
    from tests.runtime.conftest import BuiltRuntime
    from tests.support.workspace import DemoWorkspace


def lending(made: DemoWorkspace, **environments: str) -> Workspace:
    """Return the demo's workspace as if its environments had other names."""
    workspace = Workspace.load(made.root)
    found = {name: workspace.environment(real) for name, real in environments.items()}
    workspace.__dict__["environments"] = found
    return workspace


def test_the_facts_are_those_of_the_archive(
    built_runtime: BuiltRuntime, demo_workspace: DemoWorkspace
) -> None:
    facts = built_runtime.facts
    with tarfile.open(built_runtime.archive) as archive:
        members = archive.getmembers()
    assert facts.source == "environment bundler"
    assert facts.python == demo_workspace.python_version
    assert facts.bundler == bundler.__version__
    assert facts.pixi is None
    assert facts.glibc is not None
    assert facts.unpacked_bytes == sum(one.size for one in members)
    assert facts.inodes == len(members)


def test_no_path_of_this_machine_is_in_the_archive(built_runtime: BuiltRuntime) -> None:
    here = [os.fsencode(place) for place in (built_runtime.store, Path(bundler.__file__).parent)]
    with tarfile.open(built_runtime.archive) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() else None
            data = file.read() if file else b""
            assert not [place for place in here if place in data], member.name


def test_the_same_inputs_give_the_same_bytes(
    built_runtime: BuiltRuntime, demo_workspace: DemoWorkspace, tmp_path: Path
) -> None:
    store = tmp_path / "s"
    store.mkdir()
    (store / "mirror").symlink_to(built_runtime.store / "mirror")
    out = tmp_path / "runtime.tar.gz"
    facts = build_runtime(Workspace.load(demo_workspace.root), Store(store), out)
    assert facts == built_runtime.facts
    assert out.read_bytes() == built_runtime.archive.read_bytes()


def test_a_second_pack_makes_nothing_again(
    built_runtime: BuiltRuntime,
    demo_workspace: DemoWorkspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_make", lambda *_: pytest.fail("made again"))
    workspace = Workspace.load(demo_workspace.root)
    out = tmp_path / "out" / "runtime.tar.gz"
    out.parent.mkdir()
    out.write_bytes(b"an older one")
    assert build_runtime(workspace, Store(built_runtime.store), out) == built_runtime.facts
    assert out.read_bytes() == built_runtime.archive.read_bytes()
    assert [one.name for one in out.parent.iterdir()] == ["runtime.tar.gz"]


def test_an_environment_that_cannot_run_bundler_is_refused(
    built_runtime: BuiltRuntime, demo_workspace: DemoWorkspace, tmp_path: Path
) -> None:
    workspace = lending(demo_workspace, bundler="extra")
    store = Store(tmp_path / "store")
    store.root.mkdir()
    (store.root / "mirror").symlink_to(built_runtime.store / "mirror")
    with pytest.raises(InstallError, match="doesn't start in its own runtime") as caught:
        build_runtime(workspace, store, tmp_path / "runtime.tar.gz")
    assert "No module named" in caught.value.findings[-1]
    assert not (tmp_path / "runtime.tar.gz").exists()
    assert list((store.root / "runtime").iterdir()) == []


def test_a_workspace_without_an_environment_bundler_gets_the_one_that_came_with_bundler(
    demo_workspace: DemoWorkspace, tmp_path: Path
) -> None:
    workspace = lending(demo_workspace, default="default")
    (default, own) = required_environments(workspace, ["default"])
    assert (default.name, own.name) == ("default", "bundler")
    assert own == Workspace.load(PROJECT).environment("bundler")
    assert own.version_of("pixi")
    assert all(artifact.sha256 for artifact in own.artifacts)
    with pytest.raises(InstallError, match="nothing to install from"):
        build_runtime(workspace, Store(tmp_path), tmp_path / "out")


def test_a_pixi_travels_only_where_it_is_named(
    built_runtime: BuiltRuntime,
    demo_workspace: DemoWorkspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pixi = tmp_path / "pixi"
    pixi.write_text("#!/bin/sh\necho pixi 0.99.1\n")
    pixi.chmod(0o755)
    monkeypatch.setenv("BUNDLER_PIXI", str(pixi))
    monkeypatch.setattr(module, "NEEDED", ("click",))
    workspace = lending(demo_workspace, bundler="extra")
    store = Store(built_runtime.store)
    without = build_runtime(workspace, store, tmp_path / "without.tar.gz")
    having = build_runtime(workspace, store, tmp_path / "with.tar.gz", pixi=pixi)
    assert (without.pixi, having.pixi) == (None, "0.99.1")
    with tarfile.open(tmp_path / "without.tar.gz") as archive:
        assert "bin/pixi" not in archive.getnames()
    with tarfile.open(tmp_path / "with.tar.gz") as archive:
        file = archive.extractfile("bin/pixi")
        assert file is not None
        assert file.read() == pixi.read_bytes()
        assert archive.getmember("bin/pixi").mode == 0o755


def test_a_program_that_is_no_pixi_is_refused(demo_workspace: DemoWorkspace, tmp_path: Path) -> None:
    workspace = lending(demo_workspace, bundler="extra")
    with pytest.raises(InputError, match="doesn't say its version"):
        build_runtime(workspace, Store(tmp_path), tmp_path / "out", pixi=Path("/bin/true"))


def test_the_runtime_has_what_the_air_gapped_host_needs(built_runtime: BuiltRuntime, tmp_path: Path) -> None:
    """Its own wheels alone: nothing of this interpreter's comes along, and the native installer runs, too."""
    subprocess.run(["tar", "xzf", built_runtime.archive, "-C", tmp_path], check=True)
    program = "from bundler.install.choose import choose_installer as c; print(c('native').name)"
    command = [tmp_path / "bin/python", "-I", "-c", program]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
    assert done.stdout == "native\n", done.stderr
    names = [path.name for path in tmp_path.rglob("*")]
    assert not [
        name
        for name in names
        if name.startswith("pytest-") or name.endswith(("uv_cache.json", "direct_url.json"))
    ]
