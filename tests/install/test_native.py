from __future__ import annotations

import csv
import hashlib
import os
import subprocess
import sys
from base64 import urlsafe_b64encode
from typing import TYPE_CHECKING

import pytest

from bundler.common.progress import SILENT, SilentReporter
from bundler.errors import InstallError
from bundler.install.choose import choose_installer
from bundler.install.installer import Caches, one_at_a_time
from bundler.install.native import MARK, NativeInstaller, is_finished
from bundler.install.pixi import PixiInstaller, find_pixi
from bundler.install.sanity import Imports, check_imports
from tests.install.conftest import Stage, leave_md5_alone, stand_in
from tests.install.test_pixi import HOSTILE

if TYPE_CHECKING:
    from pathlib import Path

OWN_NOTES = {"conda-meta/bundler", "conda-meta/pixi", "conda-meta/.pixi-environment-fingerprint"}
"""What each installer writes about itself."""


def install(stage: Stage, *names: str) -> None:
    NativeInstaller.find().install(stage.root, stage.environments(*names), stage.store, SILENT)


def prefix(stage: Stage, name: str = "default") -> Path:
    return stage.root / ".pixi/envs" / name


def tree(folder: Path) -> dict[str, tuple[str, int, str]]:
    """Return kind, mode and content of all that is in a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode & 0o777
        if path.is_symlink():
            entry = ("link", 0, str(path.readlink()))
        elif path.is_dir():
            entry = ("dir", mode, "")
        else:
            entry = ("file", mode, hashlib.sha256(path.read_bytes()).hexdigest())
        found[path.relative_to(folder).as_posix()] = entry
    return found


def test_what_it_makes_runs_and_says_what_pixi_would(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in HOSTILE.items():
        if not key.startswith("PYTHON"):
            monkeypatch.setenv(key, value)
    lock = (stage.root / "pixi.lock").read_bytes()
    install(stage, "default")
    assert (stage.root / "pixi.lock").read_bytes() == lock
    versions = check_imports(prefix(stage), Imports(wanted=("click", "tqdm", "msgspec", "markupsafe")))
    assert set(versions) == {"click", "tqdm", "msgspec", "markupsafe"}
    infos = sorted(prefix(stage).glob("lib/python*/site-packages/*.dist-info"))
    assert len(infos) == 4
    for info in infos:
        assert (info / "INSTALLER").read_text() == "uv-pixi"
        assert not (info / "direct_url.json").exists()
        check_record(info)
    # The cache's own copies keep uv's word: nothing was changed through a hard link.
    cached = list((stage.root / ".bundler/cache/pixi/uv-cache").rglob("INSTALLER"))
    assert {path.read_text() for path in cached} <= {"uv"}


def test_packages_that_an_md5_alone_fixes_are_installed_and_checked_by_it(stage: Stage) -> None:
    leave_md5_alone(stage)
    for name in ("demo-notes", "click"):
        path = stage.artifact(name)
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(InstallError, match=name):
            install(stage, "default")
        path.write_bytes(data)
    install(stage, "default")
    assert check_imports(prefix(stage), Imports(wanted=("click",)))
    assert is_finished(stage.root, stage.environments("default")[0])


def test_a_configuration_of_uvs_above_the_installation_is_not_read(stage: Stage) -> None:
    """uv looks for one in every folder above the one it runs in: such a one would end the install."""
    hostile = 'required-version = "==0.0.1"\nno-index = true\n[pip]\nno-binary = [":all:"]\n'
    (stage.root / "uv.toml").write_text(hostile)
    install(stage, "extra")
    assert is_finished(stage.root, stage.environments("extra")[0])


def check_record(info: Path) -> None:
    """Compare every line of RECORD with its file, and every file with a line."""
    rows = list(csv.reader((info / "RECORD").read_text().splitlines()))
    for name, digest, size in rows:
        path = info.parent / name
        if digest:
            found = urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).rstrip(b"=").decode()
            assert (digest, int(size)) == (f"sha256={found}", path.stat().st_size), name
    listed = {name for name, _, _ in rows}
    inside = {path.relative_to(info.parent).as_posix() for path in info.rglob("*") if path.is_file()}
    assert inside <= listed


def test_each_conda_package_is_asked_for_once(stage: Stage) -> None:
    install(stage, "default")
    packages = [a for a in stage.environments("default")[0].artifacts if a.kind == "conda"]
    paths = sorted(stage.store.relative(a.url).removeprefix("mirror/") for a in packages)
    assert sorted(stage.asked()) == [f"GET 200 /{path}" for path in paths]


def test_run_again_there_is_nothing_to_do(stage: Stage) -> None:
    install(stage, "extra")
    python = prefix(stage, "extra") / "bin/python"
    before = tree(prefix(stage, "extra"))
    changed = python.lstat().st_ctime_ns
    stage.mirrors.clear()
    install(stage, "extra", "default")
    assert python.lstat().st_ctime_ns == changed
    assert tree(prefix(stage, "extra")) == before
    assert is_finished(stage.root, stage.environments("default")[0])


def test_an_interrupted_install_is_found_and_done_anew(stage: Stage) -> None:
    install(stage, "extra")
    whole = tree(prefix(stage, "extra"))
    (prefix(stage, "extra") / MARK).unlink()
    (prefix(stage, "extra") / "half").write_text("done")
    next(prefix(stage, "extra").glob("lib/python*/os.py")).unlink()
    install(stage, "extra")
    assert tree(prefix(stage, "extra")) == whole


def test_killed_at_any_moment_it_goes_on(stage: Stage, tmp_path: Path) -> None:
    """A process that is killed leaves nothing that the next run takes for whole."""
    install(stage, "extra")
    whole = tree(prefix(stage, "extra"))
    code = (
        "import sys; from pathlib import Path\n"
        "from bundler.install.native import NativeInstaller; from bundler.common.progress import SILENT\n"
        "from bundler.store import Store; from bundler.workspace import Workspace\n"
        "root = Path(sys.argv[1]); w = Workspace.load(root)\n"
        "NativeInstaller.find().install(root, [w.environment('extra')], Store.of(root), SILENT)\n"
    )
    for delay in (0.3, 0.5, 0.7):
        (prefix(stage, "extra") / MARK).unlink(missing_ok=True)
        process = subprocess.Popen([sys.executable, "-c", code, str(stage.root)])
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.kill()
        process.wait()
    install(stage, "extra")
    assert tree(prefix(stage, "extra")) == whole


def test_another_lock_replaces_the_environment(stage: Stage) -> None:
    install(stage, "extra")
    first = stage.environments("extra")[0]
    import dataclasses

    smaller = dataclasses.replace(first, artifacts=tuple(a for a in first.artifacts if a.name != "packaging"))
    NativeInstaller.find().install(stage.root, [smaller], stage.store, SILENT)
    assert not list(prefix(stage, "extra").glob("lib/python*/site-packages/packaging*"))
    assert is_finished(stage.root, smaller)
    assert not is_finished(stage.root, first)


@pytest.mark.parametrize("name", ["click", "demo-notes", "demo-greeting"])
def test_a_damaged_artifact_is_named(stage: Stage, name: str) -> None:
    path = stage.artifact(name)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(InstallError, match="not what the lock promises") as caught:
        install(stage, "default")
    assert [finding.split("-")[0] for finding in caught.value.findings] == [name.split("-")[0]]
    assert not (prefix(stage) / MARK).exists()


def test_a_replaced_wheel_is_refused(stage: Stage) -> None:
    """A whole wheel, but another one than the lock names."""
    stage.artifact("click").write_bytes(stage.artifact("packaging").read_bytes())
    with pytest.raises(InstallError, match="not what the lock promises"):
        install(stage, "extra")


def test_what_is_missing_is_named_at_once(stage: Stage) -> None:
    stage.artifact("click").unlink()
    stage.artifact("demo-notes").unlink()
    with pytest.raises(InstallError, match="2 of 9 artifacts") as caught:
        install(stage, "default", "extra")
    assert len(caught.value.findings) == 2
    assert not prefix(stage).exists()


def test_a_wheel_without_a_hash(stage: Stage) -> None:
    import dataclasses

    (environment,) = stage.environments("extra")
    artifacts = tuple(
        dataclasses.replace(a, sha256=None) if a.name == "click" else a for a in environment.artifacts
    )
    NativeInstaller.find().install(
        stage.root, [dataclasses.replace(environment, artifacts=artifacts)], stage.store, SILENT
    )
    assert check_imports(prefix(stage, "extra"), Imports(wanted=("click",)))


def test_a_root_with_a_space(stage: Stage) -> None:
    root = stage.root.rename(stage.root.with_name("a space & more"))
    moved = Stage(root, type(stage.workspace).load(root), type(stage.store).of(root))
    install(moved, "extra")
    assert check_imports(prefix(moved, "extra"), Imports(wanted=("click",)))


def test_what_it_lacks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bundler.install.native.find_uv", lambda: None)
    with pytest.raises(InstallError, match="the native installer needs uv"):
        choose_installer("native")


def test_auto_takes_pixi_where_it_is_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUNDLER_PIXI", str(stand_in(tmp_path / "fit").path))
    assert choose_installer("auto").name == "pixi 0.77.0"
    monkeypatch.setenv("BUNDLER_PIXI", str(stand_in(tmp_path / "old", "pixi 0.60.0").path))
    assert choose_installer("auto").name == "native"
    with pytest.raises(InstallError, match="too old"):
        choose_installer("pixi")
    monkeypatch.setattr("bundler.install.native.find_uv", lambda: None)
    with pytest.raises(InstallError, match="no installer here"):
        choose_installer("auto")


# With the real pixi.


def by_pixi(stage: Stage, pixi: Path, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setenv("BUNDLER_PIXI", str(pixi))
    PixiInstaller(find_pixi()).install(stage.root, stage.environments(*names), stage.store, SILENT)


@pytest.mark.pixi
def test_native_equals_pixi_file_for_file(stage: Stage, pixi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(stage, "default", "extra")
    native = stage.root / ".pixi"
    native.rename(stage.root / "by-native")
    by_pixi(stage, pixi, monkeypatch, "default", "extra")
    one, other = tree(stage.root / "by-native"), tree(native)
    for found in (one, other):
        for note in OWN_NOTES:
            for name in ("default", "extra"):
                found.pop(f"envs/{name}/{note}", None)
        found.pop("config.toml", None)
    assert one == other


@pytest.mark.pixi
def test_pixi_finds_nothing_to_do_over_native(
    stage: Stage, pixi: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (stage.root / ".pixi/config.toml").unlink()
    install(stage, "default", "extra")
    before = tree(stage.root / ".pixi")
    # No mirror, no cache, no way out: whatever pixi wanted to fetch would fail.
    variables = {
        "PATH": os.environ["PATH"],
        "HOME": str(stage.root / "home"),
        "PIXI_CACHE_DIR": str(stage.root / "empty"),
        "ALL_PROXY": "http://127.0.0.1:9",
    }
    command = [str(pixi), "install", "--frozen", "-e", "default", "-e", "extra"]
    done = subprocess.run(command, cwd=stage.root, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    after = tree(stage.root / ".pixi")
    added = {name.split("/", 2)[-1] for name in set(after) - set(before)}
    assert added <= OWN_NOTES
    assert {name: after[name] for name in before} == before
    ran = subprocess.run(
        [str(pixi), "run", "--frozen", "-e", "default", "tqdm", "--version"],
        cwd=stage.root,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    # And the mark still holds for the native installer.
    assert is_finished(stage.root, stage.environments("default")[0])


@pytest.mark.pixi
def test_native_after_pixi_starts_anew(stage: Stage, pixi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_pixi(stage, pixi, monkeypatch, "extra")
    install(stage, "extra")
    assert is_finished(stage.root, stage.environments("extra")[0])
    assert check_imports(prefix(stage, "extra"), Imports(wanted=("click",)))


def test_the_teams_layout_shares_one_copy(tmp_path: Path) -> None:
    caches = Caches.of_store(tmp_path)
    caches.join()
    caches.join()
    (caches.pixi / "pkgs" / "here").touch()
    assert (tmp_path / "conda/rattler/pkgs/here").exists()
    assert (tmp_path / "pixi/uv-cache").samefile(tmp_path / "pypi/uv")
    # What pixi filled by itself before stays where it is.
    other = Caches.of_store(tmp_path / "other")
    (other.pixi / "pkgs").mkdir(parents=True)
    other.join()
    assert not (other.pixi / "pkgs").is_symlink()


def test_a_second_install_waits_for_the_first_and_for_its_children(tmp_path: Path) -> None:
    caches = Caches.of_installation(tmp_path)
    with one_at_a_time(caches, SILENT) as held:
        # The child of an install that was killed: it holds the lock when this process lets go of it.
        child = subprocess.Popen(["sleep", "1"], pass_fds=[held])
    said: list[str] = []

    class Saying(SilentReporter):
        def say(self, line: str) -> None:
            said.append(line)

    with one_at_a_time(caches, Saying()):
        assert child.wait(1) == 0
    assert said == ["another install is under way here: waiting for it"]
    with one_at_a_time(caches, Saying()):
        pass
    assert len(said) == 1


def test_an_end_without_an_answer_is_an_error(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = tmp_path / "python"
    silent.write_text("#!/bin/sh\nexit 0\n")
    silent.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(silent))
    with pytest.raises(InstallError, match="rattler ended without an answer"):
        install(stage, "extra")
    assert not is_finished(stage.root, stage.environments("extra")[0])
