"""The runtime: made of real parts, the same bytes from the same inputs, refused where it wouldn't run."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import bundler
from bundler.errors import InputError, InstallError
from bundler.runtime import build as module
from bundler.runtime.build import build_runtime
from bundler.store import Store
from bundler.workspace import Workspace
from tests.conftest import PROJECT
from tests.support.workspace import RUNTIME, make_workspace

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
    assert facts.source == "the interpreter of environment default"
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
    workspace = Workspace.load(demo_workspace.root)
    environments = [workspace.environment("default")]
    out = tmp_path / "runtime.tar.gz"
    facts = build_runtime(workspace, Store(store), out, environments=environments)
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
    environments = [workspace.environment("default")]
    assert (
        build_runtime(workspace, Store(built_runtime.store), out, environments=environments)
        == built_runtime.facts
    )
    assert out.read_bytes() == built_runtime.archive.read_bytes()
    assert [one.name for one in out.parent.iterdir()] == ["runtime.tar.gz"]


def test_an_environment_bundler_is_preferred(
    built_runtime: BuiltRuntime,
    demo_workspace: DemoWorkspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "NEEDED", ("click", "msgspec", "tqdm"))
    workspace = lending(demo_workspace, bundler="default", extra="extra")
    out = tmp_path / "runtime.tar.gz"
    facts = build_runtime(workspace, Store(built_runtime.store), out)
    assert facts.source == "environment bundler"
    target = tmp_path / "moved"
    target.mkdir()
    subprocess.run(["tar", "xzf", out, "-C", target], check=True)
    done = subprocess.run(
        [target / "bin/python", "-I", "-m", "bundler", "--version"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith(f"bundler, version {bundler.__version__}")
    # Of this interpreter's own distributions nothing came along.
    assert not (target / "bin/uv").exists()
    with tarfile.open(out) as archive:
        assert not [
            name for name in archive.getnames() if name.endswith(("uv_cache.json", "direct_url.json"))
        ]


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


def test_without_a_fitting_interpreter_the_hint_names_the_way(
    demo_workspace: DemoWorkspace, tmp_path: Path
) -> None:
    workspace = Workspace.load(demo_workspace.root)
    real = workspace.environment("default")
    other = dataclasses.replace(
        real,
        artifacts=tuple(
            dataclasses.replace(one, version="3.9.1") if one.name == "python" else one
            for one in real.artifacts
        ),
    )
    with pytest.raises(InputError, match=r"default: 3\.9\.1") as caught:
        build_runtime(workspace, Store(tmp_path), tmp_path / "out", environments=[other])
    assert "environment bundler" in str(caught.value.hint)
    with pytest.raises(InputError, match="no environment is packed"):
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


def test_the_environment_bundler_has_what_the_air_gapped_host_needs(tmp_path: Path, own_code: Path) -> None:
    """Its own wheels alone: nothing of this interpreter's comes along, and the native installer runs, too."""
    made = make_workspace(tmp_path, environments=(RUNTIME,))
    words = [made.root / "pixi.lock", made.channel, made.root / ".pkg-cache"]
    subprocess.run([sys.executable, "-m", "tests.support.filled_store", *words], cwd=PROJECT, check=True)
    out = tmp_path / "runtime.tar.gz"
    facts = build_runtime(Workspace.load(made.root), Store.of(made.root), out)
    assert facts.source == "environment bundler"
    target = tmp_path / "moved"
    target.mkdir()
    subprocess.run(["tar", "xzf", out, "-C", target], check=True)
    program = "from bundler.install.choose import choose_installer as c; print(c('native').name)"
    command = [target / "bin/python", "-I", "-c", program]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
    assert done.stdout == "native\n", done.stderr
