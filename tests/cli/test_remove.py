"""Room on the disk: who takes it, a model or an environment taken out, all of it removed."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from bundler.common.progress import SILENT
from bundler.errors import DestinationError
from bundler.installation import Installation
from bundler.serve.environment_checks import user_folder
from bundler.work.remove import uninstall, what_leaves
from tests.cli.conftest import run_bundler
from tests.serve.conftest import Bench, bench, make_installation

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Bundler

NATIVE = ("--installer", "native")
__all__ = ["bench"]


@pytest.fixture
def installed(packed: Path, tmp_path: Path) -> Path:
    """Return an installation with an environment and a model."""
    done = run_bundler("unpack", packed, tmp_path / "glm", *NATIVE)
    assert done.returncode == 0, done.stderr
    return tmp_path / "glm"


def test_one_by_one(bundler: Bundler, installed: Path, packed: Path) -> None:
    rows = json.loads(bundler("du", installed, "--json").stdout)["parts"]
    parts = {one["part"]: one["bytes"] for one in rows}
    assert {"model tiny-glm4-moe", "environment default", "store, mirror", "caches"} <= set(parts)
    whole = sum(
        status.st_blocks * 512
        for status in {
            (one.st_dev, one.st_ino): one
            for one in (path.lstat() for path in installed.rglob("*") if not path.is_dir())
        }.values()
    )
    assert 0 <= whole - sum(parts.values()) < 100_000, "all but pixi.toml, pixi.lock and bin is in a part"

    done = bundler("remove", "tiny-glm4-moe", "-C", installed)
    assert done.returncode == 0 and done.stdout.startswith("removed tiny-glm4-moe; ")
    assert not (installed / "weights/tiny-glm4-moe").exists()
    assert bundler("verify", "--deep", installed).returncode == 0
    assert not Installation(installed).models
    again = bundler("remove", "tiny-glm4-moe", "-C", installed)
    assert again.returncode == 3 and "there are: default" in again.stderr

    done = bundler("remove", "default", "-C", installed)
    assert done.returncode == 0, done.stderr
    assert not (installed / ".pixi/envs/default").exists() and not Installation(installed).environments
    assert not list((installed / ".pkg-cache").rglob("*.whl")), "nothing else needs the wheels"
    assert bundler("verify", "--deep", installed).returncode == 0
    back = bundler("unpack", packed, installed, *NATIVE)
    assert back.returncode == 0, back.stderr
    assert {*Installation(installed).models} == {"tiny-glm4-moe"}
    assert bundler("verify", "--deep", installed).returncode == 0


def test_older_generations_keep_theirs(bundler: Bundler, installed: Path, newer: Path) -> None:
    assert bundler("unpack", newer, installed, *NATIVE).returncode == 0
    assert bundler("remove", "tiny-glm4-moe", "-C", installed).returncode == 0
    assert not Installation(installed).models
    shown = bundler("du", installed).stdout
    assert "generation 1: model tiny-glm4-moe" in shown and "generation 2: model" not in shown
    assert bundler("rollback", "-C", installed).returncode == 0
    assert bundler("verify", "--deep", installed).returncode == 0


def test_what_an_interrupted_run_left_goes(bundler: Bundler, tmp_path: Path) -> None:
    root = make_installation(tmp_path / "glm")
    assert bundler("remove", "Tiny", "-C", root).returncode == 0
    (root / "weights/Tiny").mkdir()
    (root / "weights/Tiny/model.safetensors").write_bytes(bytes(10_000))
    done = bundler("remove", "Tiny", "-C", root)
    assert done.returncode == 0 and not (root / "weights/Tiny").exists()


def test_one_that_is_served_stays(bench: Bench) -> None:
    assert bench.run(*bench.serve("--detach")).returncode == 0
    refused = bench.run("remove", "Tiny", "-C", str(bench.root))
    assert refused.returncode == DestinationError.exit_code
    assert f"bundler stop -C {bench.root} --port {bench.port}" in refused.stderr
    refused = bench.run("uninstall", str(bench.root), "--yes")
    assert refused.returncode == DestinationError.exit_code and "a server of this" in refused.stderr
    assert bench.run("stop").returncode == 0
    assert bench.run("remove", "Tiny", "-C", str(bench.root)).returncode == 0


def test_all_of_it(bundler: Bundler, installed: Path, tmp_path: Path) -> None:
    (installed / "notes.txt").write_text("mine")
    asked = bundler("uninstall", installed)
    assert asked.returncode == 2 and "--yes" in asked.stderr and installed.is_dir()
    done = bundler("uninstall", installed, "--yes")
    assert done.returncode == 0 and f"{installed} is removed" in done.stdout
    assert [child.name for child in installed.iterdir()] == ["notes.txt"]
    shutil.rmtree(installed)
    assert bundler("uninstall", tmp_path, "--yes").returncode == 3


def test_units_and_caches_go_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = make_installation(tmp_path / "glm")
    units = tmp_path / "units"
    units.mkdir()
    (units / "bundler-tiny.service").write_text(f"ExecStart={root}/bin/bundler serve\n")
    (units / "bundler-other.service").write_text(
        f"ExecStart={root}2/bin/bundler serve\nExecStart=/srv{root}/bin/bundler serve\n"
    )
    own = user_folder(root, "run")
    own.mkdir(parents=True)
    leaving = what_leaves(root, units)
    assert [path.name for path in leaving.units] == ["bundler-tiny.service"]
    assert leaving.caches == (own.parent,)
    uninstall(leaving, SILENT)
    assert not root.exists() and not own.parent.exists()
    assert [path.name for path in units.iterdir()] == ["bundler-other.service"]


@pytest.mark.parametrize("what", ["an empty folder", "a folder of others", "a bundle"])
def test_what_is_no_installation_is_left_alone(
    bundler: Bundler, packed: Path, tmp_path: Path, what: str
) -> None:
    """It is said what is there; nobody is told to finish an unpack that never was."""
    place = tmp_path / "place"
    place.mkdir()
    if what == "a folder of others":
        (place / "weights").mkdir()
        (place / "weights" / "mine.safetensors").write_bytes(b"mine")
    if what == "a bundle":
        place = packed
    before = sorted(place.rglob("*"))
    done = bundler("uninstall", place, "--yes")
    assert done.returncode == 3 and "there is nothing to uninstall, and nothing was removed" in done.stderr
    assert ("this is a bundle" in done.stderr) is (what == "a bundle") and "finish" not in done.stderr
    assert sorted(place.rglob("*")) == before
    told = bundler("du", place)
    if what == "an empty folder":
        assert told.returncode == 0 and told.stdout == "" and "nothing of bundler's is here" in told.stderr
    if what == "a bundle":
        assert f"bundle {packed.name}" in told.stdout


def test_what_was_left_half_can_be_uninstalled(bundler: Bundler, installed: Path) -> None:
    """As an unpack that was interrupted, or an uninstallation, leaves it: without a receipt."""
    (installed / ".bundler/receipt.json").unlink()
    (installed / "notes.txt").write_text("mine")
    done = bundler("uninstall", installed, "--yes")
    assert done.returncode == 0, done.stderr
    assert {"notes.txt"} <= {child.name for child in installed.iterdir()}
    assert not (installed / "weights").exists() and not (installed / ".bundler").exists()
