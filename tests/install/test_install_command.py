from __future__ import annotations

import hashlib
import os
import shutil
from typing import TYPE_CHECKING

import pytest
import yaml
from click.testing import CliRunner, Result

from bundler import manifest as manifests
from bundler.cli.install import install_command
from bundler.common.progress import SILENT, SilentReporter
from bundler.errors import DestinationError, InputError, InstallError, UnknownNameError
from bundler.installation import (
    BUNDLES,
    RECEIPT,
    STATE,
    Installation,
    Receipt,
    SeenFile,
    UnpackedBundle,
    write_atomically,
    write_receipt,
)
from bundler.manifest import Environment, Manifest, Writer
from bundler.work.install import install_environments, remove_store

if TYPE_CHECKING:
    from pathlib import Path

    from tests.install.conftest import Stage

PINNED = SeenFile(".pkg-cache/mirror/files.test/x.whl", 1, 1, "0" * 64)
WEIGHTS = SeenFile("weights/tiny/config.json", 1, 1, "0" * 64)


@pytest.fixture
def installation(stage: Stage) -> Installation:
    """Return what unpack leaves: files and a receipt, and no environment yet."""
    entries = (Environment(name="default", imports=("click", "tqdm")), Environment(name="extra"))
    return keep(stage.root, entries)


def keep(root: Path, entries: tuple[Environment, ...]) -> Installation:
    """Write the receipt of a bundle with these environments, and its manifest."""
    data = manifests.encode(
        Manifest(name="demo", writer=Writer(bundler="0", libzstd="0"), environments=entries)
    )
    digest = hashlib.sha256(data).hexdigest()
    write_atomically(root / BUNDLES / f"{digest}.json", data)
    bundle = UnpackedBundle(
        name="demo", manifest_sha256=digest, bundler="0", finished="2026-01-01T00:00:00+00:00", checked="all"
    )
    write_receipt(root, Receipt(bundles=(bundle,), files=(PINNED, WEIGHTS)))
    return Installation(root)


def invoke(*words: str) -> Result:
    return CliRunner().invoke(install_command, words, catch_exceptions=False)


def test_all_environments_are_installed_checked_and_in_the_receipt(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(installation.root)
    done = invoke("--installer", "native")
    assert done.exit_code == 0
    receipt = Installation(installation.root).receipt
    assert [one.name for one in receipt.environments] == ["default", "extra"]
    assert {one.installer for one in receipt.environments} == {"native"}
    # What the manifest names, and by itself where it names nothing.
    assert set(receipt.environments[0].versions) == {"click", "tqdm"}
    assert set(receipt.environments[1].versions) == {"click", "packaging"}
    assert f"extra: installed by native in {installation.root}/.pixi/envs/extra" in done.output
    assert (installation.root / "bin/activate-extra.sh").exists()
    assert receipt.files == (PINNED, WEIGHTS)


def test_the_platform_that_was_carried_is_installed(stage: Stage) -> None:
    """The lock's second platform of the same subdir, which lacks a wheel that the first one has."""
    lock = stage.root / "pixi.lock"
    document = yaml.safe_load(lock.read_text())
    document["platforms"] = [{"name": name, "subdir": "linux-64"} for name in ("linux-64", "small")]
    packages = document["environments"]["extra"]["packages"]
    packages["small"] = [one for one in packages["linux-64"] if "/packaging-" not in str(one)]
    lock.write_text(yaml.safe_dump(document))
    installation = keep(stage.root, (Environment(name="extra", platform="small"),))
    install_environments(installation, ["extra"], installer="native", reporter=SILENT)
    site = next(installation.prefix("extra").glob("lib/python*/site-packages"))
    assert (site / "click").is_dir() and not (site / "packaging").exists()


def test_again_after_pixi_was_deleted(installation: Installation) -> None:
    install_environments(installation, ["extra"], "native", SILENT)
    first = Installation(installation.root).receipt.environments
    shutil.rmtree(installation.root / ".pixi")
    done = invoke("--installer", "native", "-e", "extra", str(installation.root))
    assert done.exit_code == 0
    assert (installation.root / ".pixi/envs/extra/bin/python").exists()
    assert [one.name for one in Installation(installation.root).receipt.environments] == ["extra"]
    assert first[0].versions == Installation(installation.root).receipt.environments[0].versions


def test_what_a_power_cut_left_of_compiled_modules_is_made_anew(installation: Installation) -> None:
    """They aren't synced before the install ends: the environment is finished, and nothing imports."""
    install_environments(installation, ["extra"], "native", SILENT)
    compiled = list((installation.root / ".pixi/envs/extra/lib").rglob("click/__pycache__/*.pyc"))
    assert len(compiled) > 10
    for path in compiled:
        path.write_bytes(path.read_bytes()[:16] + bytes(path.stat().st_size - 16))
    install_environments(installation, ["extra"], "native", SILENT)
    assert [one.name for one in Installation(installation.root).receipt.environments] == ["extra"]


def test_a_failed_install_is_not_in_the_receipt(stage: Stage, installation: Installation) -> None:
    install_environments(installation, ["extra"], "native", SILENT)
    shutil.rmtree(installation.root / ".pixi")
    stage.artifact("click").unlink()
    with pytest.raises(InstallError, match="not in the store"):
        install_environments(installation, ["extra"], "native", SILENT)
    assert Installation(installation.root).receipt.environments == ()


def test_an_environment_that_does_not_import_is_not_installed(installation: Installation) -> None:
    entries = (Environment(name="extra", imports=("no_such_module",)),)
    with pytest.raises(InstallError, match="import no_such_module failed"):
        install_environments(keep(installation.root, entries), ["extra"], "native", SILENT)
    assert Installation(installation.root).receipt.environments == ()


def test_the_store_is_pruned_when_all_is_installed(installation: Installation) -> None:
    with pytest.raises(InstallError, match="still needed: default, extra"):
        remove_store(installation, SILENT)
    done = invoke("--installer", "native", "--prune-store", str(installation.root))
    assert done.exit_code == 0
    assert "the store is removed" in done.output
    after = Installation(installation.root)
    assert not (after.root / ".pkg-cache/mirror").exists()
    assert after.receipt.files == (WEIGHTS,)
    assert after.store_pruned
    assert not installation.store_pruned
    assert [one.name for one in after.receipt.environments] == ["default", "extra"]
    # Over whole environments there is nothing to install, store or not.
    assert invoke("--installer", "native", "-e", "extra", str(after.root)).exit_code == 0
    said: list[str] = []

    class Saying(SilentReporter):
        def say(self, line: str) -> None:
            said.append(line)

    remove_store(after, Saying())
    assert said == []
    shutil.rmtree(after.root / ".pixi")
    with pytest.raises(InstallError, match="the store was removed") as caught:
        invoke("--installer", "native", str(after.root))
    assert "unpack the bundle again" in str(caught.value)


def test_an_installation_of_anothers_is_left_alone(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (installation.root / RECEIPT).read_bytes()
    state = installation.root / STATE
    # Root may write anywhere, so that the kernel's answer is played.
    monkeypatch.setattr(os, "access", lambda path, mode: path != state)
    with pytest.raises(DestinationError, match="can't write to the installation") as caught:
        install_environments(installation, ["default"], "native", SILENT)
    assert caught.value.hint
    with pytest.raises(DestinationError):
        remove_store(installation, SILENT)
    assert (installation.root / RECEIPT).read_bytes() == before


def test_what_is_not_there_is_said(installation: Installation, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="no environment 'cu129'"):
        invoke("-e", "cu129", str(installation.root))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no receipt"):
        invoke(str(tmp_path / "empty"))


@pytest.mark.pixi
def test_pixi_installs_again_from_its_cache_after_the_store_was_pruned(
    stage: Stage, installation: Installation, pixi: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUNDLER_PIXI", str(pixi))
    assert invoke("--prune-store", str(installation.root)).exit_code == 0
    shutil.rmtree(installation.root / ".pixi/envs")
    stage.mirrors.clear()
    done = invoke(str(installation.root))
    assert done.exit_code == 0
    assert stage.asked() == []
    assert {one.installer[:5] for one in Installation(installation.root).receipt.environments} == {"pixi "}


def test_a_second_run_that_is_stopped_leaves_what_is_installed(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finished environment is servable all the time; one to be made anew isn't, until it is whole."""

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    install_environments(installation, ["default", "extra"], "native", SILENT)
    monkeypatch.setattr("bundler.install.native.NativeInstaller.install", stopped)
    (installation.prefix("extra") / "conda-meta" / "bundler").unlink()
    with pytest.raises(KeyboardInterrupt):
        install_environments(Installation(installation.root), ["default", "extra"], "native", SILENT)
    receipt = Installation(installation.root).receipt
    assert [one.name for one in receipt.environments] == ["default"]
