from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from click.testing import CliRunner

from bundler.cli.rehearse import rehearse_command
from bundler.common.progress import SilentMeter, SilentReporter
from bundler.errors import RehearsalError
from bundler.install import namespace
from bundler.install.namespace import NoIsolationError
from bundler.install.rehearsal import imports_of, rehearse
from bundler.install.sanity import Imports
from bundler.manifest import Rehearsal
from tests.install.conftest import Stage, stand_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def can_isolate() -> None:
    try:
        namespace.find_isolation()
    except NoIsolationError as problem:
        pytest.skip(str(problem))


class Counting(SilentReporter):
    """Counts what a phase advances, and keeps what is said."""

    def __init__(self) -> None:
        self.bytes = 0
        self.lines: list[str] = []

    def phase(self, *_: object, **__: object) -> Iterator[SilentMeter]:  # type: ignore[override]
        from contextlib import nullcontext

        counting = self

        class Meter(SilentMeter):
            def advance(self, amount: int) -> None:
                counting.bytes += amount

            def say(self, line: str) -> None:
                counting.lines.append(line)

            detail = say

        return nullcontext(Meter())  # type: ignore[return-value]

    def say(self, line: str) -> None:
        self.lines.append(line)


def test_native_rehearsal_in_a_namespace(stage: Stage) -> None:
    reporter = Counting()
    before = sorted(path.name for path in stage.root.iterdir())
    result = rehearse(
        stage.workspace,
        stage.environments("default", "extra"),
        stage.store,
        installer="native",
        reporter=reporter,
    )
    assert (result.status, result.installer, result.reason) == ("passed", "native", None)
    assert result.isolation in {"unshare -n", "unshare -rn", "bwrap"}
    assert set(result.imports) == {"click", "tqdm", "markupsafe", "msgspec", "packaging"}
    assert sorted(path.name for path in stage.root.iterdir()) == before
    assert list(stage.store.root.glob("rehearsal-*")) == []
    assert (stage.store.root / "conda/rattler/pkgs").is_dir()
    assert any((stage.store.root / "pypi/uv").iterdir())
    assert reporter.bytes > 1_000_000
    assert reporter.lines
    assert not any(line.startswith("{") for line in reporter.lines)


def test_a_second_native_rehearsal_unpacks_no_wheel_again(stage: Stage) -> None:
    cache = stage.store.root / "pypi/uv"

    def rehearsed(name: str) -> set[str]:
        rehearse(stage.workspace, stage.environments(name), stage.store, installer="native", again=True)
        return {path.name for path in (cache / "archive-v0").iterdir()}

    first = rehearsed("default")
    assert rehearsed("default") == first
    shared = {one.name for one in stage.environments("default")[0].artifacts}
    extra = [one for one in stage.environments("extra")[0].artifacts if one.kind == "wheel"]
    assert len(rehearsed("extra")) == len(first) + sum(one.name not in shared for one in extra)


def test_what_passed_is_remembered_for_the_same_lock_store_and_installer(stage: Stage) -> None:
    def rehearsed(**choices: Any) -> tuple[Rehearsal, bool]:
        """Rehearse, and say whether something was installed."""
        reporter = Counting()
        workspace = type(stage.workspace).load(stage.root)
        result = rehearse(
            workspace,
            [workspace.environment("extra")],
            stage.store,
            reporter=reporter,
            **({"installer": "native"} | choices),
        )
        if not reporter.bytes:
            assert "with this lock, store and installer; not repeated" in reporter.lines[-1]
        return result, reporter.bytes > 0

    first, installed = rehearsed()
    assert installed and first.status == "passed"
    assert rehearsed() == (first, False)
    assert rehearsed(again=True) == (first, True)
    assert rehearsed(imports={"extra": ["click"]})[1], "other imports prove something else"
    with pytest.raises(RehearsalError):
        rehearsed(imports={"extra": ["no_such_module"]})
    with pytest.raises(RehearsalError):
        rehearsed(imports={"extra": ["no_such_module"]})
    shutil.rmtree(stage.store.root / "pypi")
    assert rehearsed()[1], "the caches that a rehearsal fills are wanted, too"
    assert not rehearsed()[1]
    lock = stage.root / "pixi.lock"
    lock.write_text(lock.read_text() + "\n")
    assert rehearsed()[1], "another lock"
    damaged = stage.artifact("click")
    damaged.write_bytes(b"\0" * damaged.stat().st_size)
    with pytest.raises(RehearsalError):
        rehearsed()


def test_another_installer_is_rehearsed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    rehearse(stage.workspace, stage.environments("extra"), stage.store, installer="native")
    pixi = stand_in(stage.root.parent / "pixi", then="sys.exit(1)")
    monkeypatch.setenv("BUNDLER_PIXI", str(pixi.path))
    with pytest.raises(RehearsalError, match="pixi install failed"):
        rehearse(stage.workspace, stage.environments("extra"), stage.store)


def test_the_platform_that_was_chosen_is_rehearsed(stage: Stage) -> None:
    """The lock's second platform of the same subdir, which lacks a wheel that the first one has."""
    lock = stage.root / "pixi.lock"
    document = yaml.safe_load(lock.read_text())
    document["platforms"] = [{"name": name, "subdir": "linux-64"} for name in ("linux-64", "small")]
    packages = document["environments"]["extra"]["packages"]
    packages["small"] = [one for one in packages["linux-64"] if "/packaging-" not in str(one)]
    lock.write_text(yaml.safe_dump(document))
    for platform, imported in (("linux-64", ("click", "packaging")), ("small", ("click",))):
        workspace = type(stage.workspace).load(stage.root, {"": platform})
        chosen = [workspace.environment("extra")]
        result = rehearse(workspace, chosen, stage.store, installer="native", again=True)
        assert result.imports == imported
        words = ["-C", str(stage.root), "--env", "extra", "--installer", "native", "--platform", platform]
        done = CliRunner().invoke(rehearse_command, words, catch_exceptions=False)
        assert f"imported {', '.join(imported)}\n" in done.output


def test_named_imports_are_wanted(stage: Stage) -> None:
    with pytest.raises(RehearsalError, match="import no_such_module failed") as caught:
        rehearse(
            stage.workspace,
            stage.environments("extra"),
            stage.store,
            imports={"extra": ["click", "no_such_module"]},
            installer="native",
        )
    assert "ModuleNotFoundError: No module named 'no_such_module'" in str(caught.value)
    assert list(stage.store.root.glob("rehearsal-*")) == []


def test_a_missing_artifact_fails_it_and_is_named(stage: Stage) -> None:
    stage.artifact("click").unlink()
    with pytest.raises(RehearsalError) as caught:
        rehearse(stage.workspace, stage.environments("extra"), stage.store, installer="native")
    assert caught.value.exit_code == 11
    assert [finding.split(":")[0].split("-")[0] for finding in caught.value.findings] == ["click"]


def test_an_environment_that_needs_the_network_fails(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pixi that looks elsewhere than at the mirror finds nothing there."""
    then = (
        "import socket\n"
        "try:\n    socket.create_connection(('192.0.2.1', 443), timeout=5)\n"
        "except OSError as problem:\n    print('Error: could not connect:', problem)\n    sys.exit(1)\n"
    )
    monkeypatch.setenv("BUNDLER_PIXI", str(stand_in(stage.root.parent / "pixi", then=then).path))
    with pytest.raises(RehearsalError, match="pixi install failed with exit code 1") as caught:
        rehearse(stage.workspace, stage.environments("extra"), stage.store, installer="pixi")
    assert "could not connect: [Errno 101]" in str(caught.value)


def test_what_a_killed_rehearsal_left_is_removed(stage: Stage) -> None:
    left = stage.store.root / "rehearsal-999999999-x"
    mine = stage.store.root / f"rehearsal-{os.getpid()}-x"
    for folder in (left, mine):
        folder.mkdir()
    rehearse(stage.workspace, stage.environments("extra"), stage.store, installer="native")
    assert not left.exists()
    assert mine.exists()


def test_where_it_is_forbidden_the_manifest_says_so(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespace, "ways", list)
    monkeypatch.setattr(namespace, "forbidding_settings", lambda: ["forbidden by user.max_user_namespaces=0"])
    reporter = Counting()
    result = rehearse(
        stage.workspace, stage.environments("extra"), stage.store, installer="native", reporter=reporter
    )
    assert result.status == "not rehearsed"
    assert "forbidden by user.max_user_namespaces=0" in str(result.reason)
    assert "sysctl" in reporter.lines[0]


def test_what_is_imported_by_itself(stage: Stage) -> None:
    from bundler.artifact import Artifact
    from bundler.workspace import EnvironmentLock

    def wheel(name: str) -> Artifact:
        return Artifact("wheel", name, "1", f"https://files.test/{name}.whl", None)

    wheels = (wheel("sglang"), wheel("torch"), wheel("click"), wheel("sgl-kernel"))
    serving = EnvironmentLock("cu128", (), "linux-64", wheels)
    server = ("deep_gemm", "sglang.srt.entrypoints.http_server", "sglang.srt.managers.scheduler")
    assert Imports.of(serving) == Imports(wanted=("torch", "sglang", "sgl_kernel"), if_there=server)
    passed = Rehearsal(status="passed", imports=("torch", "sglang", "sgl_kernel", *server[1:]))
    assert imports_of(serving, passed) == passed.imports, "what this version of SGLang has"
    unproved = Rehearsal(status="not rehearsed")
    assert imports_of(serving, unproved) == ("torch", "sglang", "sgl_kernel")
    other = EnvironmentLock("x", (), "linux-64", (wheel("Py.YAML-x"), wheel("click")))
    assert imports_of(other, passed) == ()
    assert Imports.of(other) == Imports(if_there=("click", "py_yaml_x"))
    assert Imports.of(serving, ("click",)) == Imports(wanted=("click",))


def test_the_command(stage: Stage) -> None:
    words = ["-C", str(stage.root), "--env", "extra", "--installer", "native"]
    done = CliRunner().invoke(rehearse_command, words, catch_exceptions=False)
    assert done.exit_code == 0
    assert "passed: extra by native" in done.output
    assert "imported click, packaging" in done.output


@pytest.mark.pixi
def test_after_it_a_plain_pixi_install_downloads_nothing(
    stage: Stage, pixi: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a wheel of an index of its own, as torch is, which pixi looks up in another way."""
    lock, manifest = stage.root / "pixi.lock", stage.root / "pixi.toml"
    index = "https://wheels.demo.invalid/whl/cu128"
    text = lock.read_text()
    place = text.index("index: ", text.rindex("name: tqdm"))
    lock.write_text(text[:place] + f"index: {index}" + text[text.index("\n", place) :])
    manifest.write_text(
        manifest.read_text().replace('tqdm = "*"', f'tqdm = {{ version = "*", index = "{index}" }}')
    )
    monkeypatch.setenv("BUNDLER_PIXI", str(pixi))
    workspace = type(stage.workspace).load(stage.root)
    environments = [workspace.environment(name) for name in ("default", "extra")]
    result = rehearse(workspace, environments, stage.store)
    assert result.installer == f"pixi {subprocess.check_output([pixi, '--version'], text=True).split()[1]}"
    shutil.rmtree(stage.root / ".pixi")
    shutil.rmtree(stage.store.root / "mirror")
    variables = {
        "PATH": os.environ["PATH"],
        "HOME": str(stage.root.parent),
        **stage.store.cache_environment(),
    }
    # In a namespace with nothing in it, and without telling pixi that it is offline.
    command = namespace.find_isolation().command(
        [str(pixi), "install", "--frozen", "-e", "default", "-e", "extra"]
    )
    done = subprocess.run(
        command,
        cwd=stage.root,
        env=namespace.child_environment(variables),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (stage.root / ".pixi/envs/default/bin/tqdm").exists()
    # One copy of each package on the disk, shared by all of the team's caches and the environment.
    python = next((stage.root / ".pixi/envs/default/bin").glob("python3.*"))
    assert python.stat().st_nlink >= 3


def test_an_interrupt_leaves_no_process_and_no_folder(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    then = "import time; print('pid', os.getpid(), flush=True); time.sleep(60)"
    monkeypatch.setenv("BUNDLER_PIXI", str(stand_in(stage.root.parent / "pixi", then=then).path))
    seen: list[int] = []

    class Impatient(SilentMeter):
        def detail(self, line: str) -> None:
            if line.startswith("pid "):
                seen.append(int(line.split()[1]))
                raise KeyboardInterrupt

    class Reporter(SilentReporter):
        def phase(self, *_: object, **__: object) -> object:  # type: ignore[override]
            from contextlib import nullcontext

            return nullcontext(Impatient())

    with pytest.raises(KeyboardInterrupt):
        rehearse(
            stage.workspace,
            stage.environments("extra"),
            stage.store,
            installer="pixi",
            reporter=Reporter(),  # type: ignore[arg-type]
        )
    assert seen
    assert not any(os.path.exists(f"/proc/{pid}") for pid in seen)  # noqa: PTH110
    assert list(stage.store.root.glob("rehearsal-*")) == []
