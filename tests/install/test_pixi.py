from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bundler.common.progress import SILENT
from bundler.errors import InstallError
from bundler.install.explain import explain
from bundler.install.pixi import PixiInstaller, find_pixi
from bundler.install.program import Ended
from bundler.platforms import Candidate
from bundler.store import Store
from bundler.workspace import Workspace
from tests.install.conftest import Stage, stand_in
from tests.support.workspace import to_pyproject

HOSTILE = {
    "HTTP_PROXY": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "ALL_PROXY": "socks5://127.0.0.1:9",
    "PIXI_OFFLINE": "1",
    "PIXI_FROZEN": "false",
    "PIXI_CACHE_DIR": "/nonexistent/cache",
    "PIXI_CONFIG_FILE": "/nonexistent/config.toml",
    "RATTLER_CACHE_DIR": "/nonexistent/cache",
    "UV_INDEX_URL": "http://127.0.0.1:9/simple",
    "UV_OFFLINE": "1",
    "UV_CACHE_DIR": "/nonexistent/cache",
    "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    "CONDA_PREFIX": "/nonexistent/conda",
    "CONDA_OVERRIDE_GLIBC": "2.5",
    "XDG_CONFIG_HOME": "/nonexistent/config",
    "XDG_CACHE_HOME": "/nonexistent/cache",
    "HF_TOKEN": "secret",
    "PYTHONPATH": "/nonexistent/python",
    "PYTHONHOME": "/nonexistent/python",
}


def digests(*paths: Path) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def use(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, then: str = "", version: str = "pixi 0.77.0"
) -> PixiInstaller:
    made = stand_in(stage.root.parent / "stand-in", version, then)
    monkeypatch.setenv("BUNDLER_PIXI", str(made.path))
    return PixiInstaller(find_pixi(stage.root))


def test_pixi_is_called_with_the_manifest_that_is_there(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    installer = use(stage, monkeypatch)
    to_pyproject(stage.root)
    installer.install(stage.root, stage.environments("extra"), stage.store, SILENT)
    assert _call(stage)["argv"][2:4] == ["--manifest-path", str(stage.root / "pyproject.toml")]


def test_how_pixi_is_called(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    installer = use(stage, monkeypatch)
    for key, value in HOSTILE.items():
        if not key.startswith("PYTHON"):
            monkeypatch.setenv(key, value)
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    installer.install(stage.root, stage.environments("default", "extra"), stage.store, SILENT)
    call = _call(stage)
    assert call["argv"] == [
        *("install", "--frozen", "--manifest-path", str(stage.root / "pixi.toml")),
        *("-e", "default", "-e", "extra"),
    ]
    assert call["cwd"] == str(stage.root)
    env = call["env"]
    assert env["PIXI_CACHE_DIR"] == str(stage.root / ".bundler/cache/pixi")
    assert "127.0.0.1" in env["NO_PROXY"]
    assert env["LC_ALL"] == "C.UTF-8"
    ours = {"PIXI_CACHE_DIR", "PIXI_CONFIG_FILE"}
    assert set(HOSTILE) & set(env) <= ours
    assert env["PIXI_CONFIG_FILE"] != HOSTILE["PIXI_CONFIG_FILE"]
    assert Path(env["HOME"]).is_relative_to(stage.root / ".bundler/cache")
    assert call["home"] == ["config.toml"]
    assert not Path(env["HOME"]).exists()


def test_pixi_takes_the_platforms_that_were_carried(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(*asked: tuple[str, ...]) -> str | None:
        found = zip(stage.environments("default", "extra"), asked, strict=False)
        chosen = [
            replace(one, virtual_packages=packages, candidates=(*one.candidates, Candidate("p1", "gpu")))
            for one, packages in found
        ]
        use(stage, monkeypatch).install(stage.root, chosen, stage.store, SILENT)
        return _call(stage)["env"].get("CONDA_OVERRIDE_CUDA")

    assert told(("__cuda=9", "__glibc=2.28"), ("__cuda=12.8",)) == "12.8"
    assert told(("__glibc=2.28",)) == "", "no platform that wants CUDA comes before it on a GPU host"


def _call(stage: Stage) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads((stage.root.parent / "stand-in/seen.json").read_text())
    return found


def test_the_configuration_names_each_origin(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    use(stage, monkeypatch).install(stage.root, stage.environments("default"), stage.store, SILENT)
    config = tomllib.loads(str(_call(stage)["config"]))
    urls = [urlsplit(one.url) for one in stage.environments("default")[0].artifacts]
    assert {*config["mirrors"]} == {f"{url.scheme}://{url.netloc}/" for url in urls}
    for origin, targets in config["mirrors"].items():
        host = origin.split("/")[2]
        assert len(targets) == 1
        assert targets[0].startswith("http://127.0.0.1:")
        assert targets[0].endswith(f"/{host}/")


def test_the_workspaces_own_configuration_is_put_aside(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    own = stage.root / ".pixi/config.toml"
    before = own.read_bytes()
    use(stage, monkeypatch).install(stage.root, stage.environments("default"), stage.store, SILENT)
    assert _call(stage)["workspace_config"] is False
    assert own.read_bytes() == before
    with pytest.raises(InstallError):
        use(stage, monkeypatch, "sys.exit(1)").install(
            stage.root, stage.environments("default"), stage.store, SILENT
        )
    assert own.read_bytes() == before
    # What a crash leaves is put back by the next install.
    own.rename(own.with_name("config.toml.aside"))
    use(stage, monkeypatch).install(stage.root, stage.environments("default"), stage.store, SILENT)
    assert own.read_bytes() == before


def test_a_moved_environment_is_made_anew(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    made_at = stage.root / ".pixi/envs/default/conda-meta/pixi_env_prefix"
    made_at.parent.mkdir(parents=True)
    made_at.write_text("/elsewhere/.pixi/envs/default/conda-meta")
    there = "sys.exit(Path('.pixi/envs/default').exists())"
    with pytest.raises(InstallError):
        use(stage, monkeypatch, "sys.exit(1)").install(
            stage.root, stage.environments("default"), stage.store, SILENT
        )
    assert made_at.is_file()
    use(stage, monkeypatch, there).install(stage.root, stage.environments("default"), stage.store, SILENT)
    assert not list((stage.root / ".pixi").glob("*default*"))
    # One that is where it was made stays, also where a link leads there.
    made_at.parent.mkdir(parents=True)
    made_at.write_text(str(made_at.parent))
    link = stage.root.with_name("link")
    link.symlink_to(stage.root)
    use(stage, monkeypatch).install(link, stage.environments("default"), stage.store, SILENT)
    assert made_at.is_file()


def test_a_changed_lock_is_put_back(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = stage.root / "pixi.lock"
    before = lock.read_bytes()
    installer = use(stage, monkeypatch, "open('pixi.lock', 'a').write('#')")
    with pytest.raises(InstallError, match=r"pixi changed pixi\.lock"):
        installer.install(stage.root, stage.environments("default"), stage.store, SILENT)
    assert lock.read_bytes() == before


def test_a_missing_artifact_is_said_before_pixi_runs(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    installer = use(stage, monkeypatch)
    stage.artifact("click").unlink()
    stage.artifact("tqdm").write_bytes(b"")
    # A lock says no size of a wheel, so an empty one is left to pixi's check of the hash.
    with pytest.raises(InstallError, match="not in the store") as caught:
        installer.install(stage.root, stage.environments("default", "extra"), stage.store, SILENT)
    assert [one.split(":")[0].rpartition("-")[0] for one in caught.value.findings] == ["click"]
    assert not (stage.root.parent / "stand-in/seen.json").exists()


def test_an_interrupt_ends_pixi(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    installer = use(stage, monkeypatch, "import time; print(os.getpid(), flush=True); time.sleep(60)")

    class Impatient:
        pid = 0

        def advance(self, amount: int) -> None: ...

        def say(self, line: str) -> None: ...

        def detail(self, line: str) -> None:
            Impatient.pid = int(line)
            raise KeyboardInterrupt

    class Reporter:
        def phase(self, *_: object, **__: object) -> object:
            from contextlib import nullcontext

            return nullcontext(Impatient())

        def say(self, line: str) -> None: ...

    with pytest.raises(KeyboardInterrupt):
        installer.install(stage.root, stage.environments("default"), stage.store, Reporter())  # type: ignore[arg-type]
    assert Impatient.pid
    assert not Path("/proc", str(Impatient.pid)).exists()


@pytest.mark.parametrize("version", ["pixi 0.70.2", "pixi 0.60.0"])
def test_too_old(stage: Stage, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    with pytest.raises(InstallError, match="too old"):
        use(stage, monkeypatch, version=version)


def test_no_version_or_no_program(stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(InstallError, match="doesn't say its version: hello"):
        use(stage, monkeypatch, version="hello")
    monkeypatch.setenv("BUNDLER_PIXI", str(tmp_path / "absent"))
    with pytest.raises(InstallError, match="BUNDLER_PIXI names no program"):
        find_pixi()
    monkeypatch.delenv("BUNDLER_PIXI")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(InstallError, match="no pixi is here"):
        find_pixi()


def test_where_pixi_is_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("BUNDLER_PIXI", raising=False)
    on_path = stand_in(tmp_path / "path", "pixi 0.75.0")
    stand_in(tmp_path / "there", "pixi 0.76.0")
    stand_in(tmp_path / "runtime/here", "pixi 0.77.0")
    monkeypatch.setenv("PATH", f"{on_path.path.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv/python"))
    assert find_pixi(tmp_path).version == (0, 75, 0)
    (tmp_path / "there").rename(tmp_path / "venv")
    assert find_pixi(tmp_path).version == (0, 76, 0)
    (tmp_path / "runtime/here").rename(tmp_path / "runtime/bin")
    assert find_pixi(tmp_path).version == (0, 77, 0)
    monkeypatch.setenv("BUNDLER_PIXI", str(on_path.path))
    assert find_pixi(tmp_path).version == (0, 75, 0)


def test_a_lock_that_pixi_cannot_read(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    installer = use(stage, monkeypatch)
    lock = stage.root / "pixi.lock"
    lock.write_text(lock.read_text().replace("version: 7", "version: 8", 1))
    with pytest.raises(InstallError, match=r"pixi 0\.77\.0 can't read a lock of version 8"):
        installer.install(stage.root, stage.environments("default"), stage.store, SILENT)
    newer = use(stage, monkeypatch, version="pixi 0.99.0")
    newer.install(stage.root, stage.environments("default"), stage.store, SILENT)


@pytest.mark.parametrize(
    ("line", "meaning"),
    [
        ("  × Hash mismatch for click==8.5.1", "not what the lock promises: click==8.5.1"),
        ("  ╰─▶ No space left on device (os error 28)", "the disk is full"),
        ("  ╰─▶ Disk quota exceeded (os error 122)", "quota"),
        ("  ╰─▶ target prefix cannot be longer than the placeholder prefix", "path is too long"),
        ("  ╰─▶ Permission denied (os error 13)", "can't be written"),
        ("  × something new", "pixi install failed with exit code 1"),
    ],
)
def test_a_failure_is_explained(line: str, meaning: str, tmp_path: Path) -> None:
    problem = explain("pixi install", Ended(1, ("Error:", line, "  │")), tmp_path)
    assert meaning in problem.what
    assert problem.findings[-1] == line.strip()
    assert problem.hint


def test_what_was_asked_in_vain_is_the_cause(tmp_path: Path) -> None:
    problem = explain(
        "pixi install", Ended(1, ("hash mismatch for x",)), tmp_path, missing=["files.test/x.whl"]
    )
    assert problem.findings == ("files.test/x.whl",)


# With the real pixi.


def real(pixi: Path, monkeypatch: pytest.MonkeyPatch) -> PixiInstaller:
    monkeypatch.setenv("BUNDLER_PIXI", str(pixi))
    return PixiInstaller(find_pixi())


def expected(stage: Stage, *names: str) -> list[str]:
    paths = {stage.store.relative(a.url) for one in stage.environments(*names) for a in one.artifacts}
    return sorted(f"GET 200 /{path.removeprefix('mirror/')}" for path in paths)


@pytest.mark.pixi
def test_real_pixi_asks_for_each_artifact_once_and_for_nothing_else(
    stage: Stage, pixi: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installer = real(pixi, monkeypatch)
    for key, value in HOSTILE.items():
        monkeypatch.setenv(key, value)
    files = [stage.root / "pixi.lock", stage.root / "pixi.toml", stage.root / ".pixi/config.toml"]
    before = digests(*files)
    installer.install(stage.root, stage.environments("default", "extra"), stage.store, SILENT)
    assert digests(*files) == before
    assert sorted(stage.asked()) == expected(stage, "default", "extra")
    # Hard links into the cache, which lies in the installation.
    python = next((stage.root / ".pixi/envs/default/bin").glob("python3.*"))
    assert python.stat().st_nlink > 1
    for key in HOSTILE:
        monkeypatch.delenv(key)
    (stage.root / ".pixi/config.toml").unlink()
    done = subprocess.run(
        [pixi, "run", "--frozen", "-e", "extra", "python", "-c", "import click, packaging; print('ran')"],
        cwd=stage.root,
        env={"PATH": os.environ["PATH"], "HOME": str(stage.root), "PIXI_CACHE_DIR": str(stage.root / "none")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "ran", done.stderr


@pytest.mark.pixi
def test_real_pixi_installs_from_a_pyproject_in_toml_11(
    stage: Stage, pixi: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to_pyproject(stage.root)
    loaded = Workspace.load(stage.root)
    files = [stage.root / "pixi.lock", stage.root / "pyproject.toml"]
    before = digests(*files)
    installer = real(pixi, monkeypatch)
    installer.install(stage.root, [loaded.environment("extra")], stage.store, SILENT)
    assert digests(*files) == before
    python = stage.root / ".pixi/envs/extra/bin/python"
    subprocess.run([python, "-c", "import click, packaging"], check=True)


@pytest.mark.pixi
def test_real_pixi_installs_again_from_its_cache_without_the_store(
    stage: Stage, pixi: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installer = real(pixi, monkeypatch)
    installer.install(stage.root, stage.environments("extra"), stage.store, SILENT)
    shutil.rmtree(stage.root / ".pixi/envs")
    shutil.rmtree(stage.store.root / "mirror")
    stage.mirrors.clear()
    installer.install(stage.root, stage.environments("extra"), stage.store, SILENT)
    assert stage.asked() == []
    assert (stage.root / ".pixi/envs/extra/bin/python").exists()
    # What no cache holds is named.
    with pytest.raises(InstallError, match="not in the store") as caught:
        installer.install(stage.root, stage.environments("default"), stage.store, SILENT)
    assert "conda.demo.invalid" in str(caught.value)


@pytest.mark.pixi
def test_real_pixi_mends_the_scripts_of_a_moved_environment(
    stage: Stage, pixi: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installer = real(pixi, monkeypatch)
    installer.install(stage.root, stage.environments("default"), stage.store, SILENT)
    moved = stage.root.rename(stage.root.with_name("moved"))
    installer.install(moved, stage.environments("default"), Store.of(moved), SILENT)
    script = moved / ".pixi/envs/default/bin/tqdm"
    assert subprocess.run([script, "--version"], check=True, capture_output=True).stdout


@pytest.mark.pixi
@pytest.mark.parametrize("name", ["click", "demo-notes", "demo-greeting"])
def test_real_pixi_refuses_a_damaged_artifact(
    stage: Stage, pixi: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = stage.artifact(name)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(InstallError, match="not what the lock promises") as caught:
        real(pixi, monkeypatch).install(stage.root, stage.environments("default"), stage.store, SILENT)
    assert [one.rpartition("-")[0] for one in (f.split(":")[0] for f in caught.value.findings)] == [name]


@pytest.mark.pixi
def test_real_pixi_says_that_it_cannot_read_the_lock(
    stage: Stage, pixi: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = stage.root / "pixi.lock"
    lock.write_text(lock.read_text().replace("version: 7", "version: 8", 1))
    monkeypatch.setattr("bundler.install.pixi.LOCK_VERSION", 8)
    with pytest.raises(InstallError, match="can't read the workspace"):
        real(pixi, monkeypatch).install(stage.root, stage.environments("default"), stage.store, SILENT)
