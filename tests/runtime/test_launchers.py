"""The scripts in an installation's bin, run by the shells that are here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import bundler
from bundler import generations
from bundler.common.progress import SILENT
from bundler.errors import DestinationError
from bundler.generations import Generations
from bundler.install.installer import Caches
from bundler.install.pixi import PixiInstaller, find_pixi
from bundler.runtime.launchers import PIXI_CACHE, write_launchers
from bundler.store import Store
from bundler.workspace import Workspace
from tests.runtime.mounts import needs_mounts

if TYPE_CHECKING:
    from tests.conftest import MadeWorkspace

SHELLS = [shell for shell in ("bash", "dash", "zsh") if shutil.which(shell)]
CLEAN = {"PATH": os.defpath + ":/usr/local/bin", "HOME": "/nonexistent"}
SHOW = '#!/bin/sh\nprintf \'%s\\n\' "{}" "$@"\n'


def program(path: Path, text: str) -> Path:
    """Write something that can be run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def said(*words: str | Path, env: dict[str, str] | None = None, **more: object) -> list[str]:
    """Run something and return the lines it prints."""
    done = subprocess.run(
        list(words), check=True, capture_output=True, text=True, env=CLEAN | (env or {}), **more
    )  # type: ignore[call-overload]
    return done.stdout.splitlines()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return an installation with launchers, at a path with a space."""
    folder = tmp_path / "g l m"
    (folder / ".pixi").mkdir(parents=True)
    write_launchers(folder, ["cu128"])
    return folder


def test_bundler_starts_without_a_runtime_by_the_interpreter_that_unpacked(root: Path) -> None:
    assert said(root / "bin/bundler", "--version")[0] == f"bundler, version {bundler.__version__}"


def test_the_runtimes_interpreter_comes_first_and_words_pass_unchanged(root: Path, tmp_path: Path) -> None:
    program(root / "runtime/bin/python", SHOW.format("$BUNDLER_HOME"))
    expected = [str(root), "-I", "-B", "-m", "bundler", "serve", "--", "a b", "$x"]
    words = ["serve", "--", "a b", "$x"]
    assert said(root / "bin/bundler", *words) == expected
    link = tmp_path / "link"
    link.symlink_to(root / "bin/bundler")
    assert said(link, *words) == expected
    assert said("bundler", *words, env={"PATH": f"{root}/bin:{os.defpath}"}) == expected
    assert said("./bundler", *words, cwd=root / "bin") == expected
    assert said(link, env={"BUNDLER_HOME": "/other"})[0] == "/other"
    program(root / "runtime/bin/python", SHOW.format("$BUNDLER_INSTALLATION"))
    assert said(link, env={"BUNDLER_INSTALLATION": "/other"})[0] == str(root)


def test_an_installation_may_be_moved(root: Path, tmp_path: Path) -> None:
    program(root / "runtime/bin/python", SHOW.format("$BUNDLER_HOME"))
    moved = root.rename(tmp_path / "else where")
    assert said(moved / "bin/bundler")[0] == str(moved)


def test_without_any_interpreter_the_way_back_is_named(root: Path) -> None:
    script = root / "bin/bundler"
    script.write_text(script.read_text().replace(sys.executable, "/nonexistent/python"))
    done = subprocess.run([script], check=False, capture_output=True, text=True, env=CLEAN)
    assert done.returncode == 3
    assert "install.sh" in done.stderr


PIXI_SHOW = "$PIXI_CACHE_DIR|$PIXI_FROZEN|$PIXI_NO_INSTALL|$PIXI_PROJECT_MANIFEST|$PIXI_OFFLINE"


def test_pixi_gets_the_installations_cache_and_lock(root: Path) -> None:
    program(root / "runtime/bin/pixi", SHOW.format(PIXI_SHOW))
    assert said(root / "bin/pixi", "run", "-e", "cu128") == [
        f"{root}/{PIXI_CACHE}|true||{root}/pixi.toml|",
        *("run", "-e", "cu128"),
    ]
    mine = {"PIXI_CACHE_DIR": "/c", "PIXI_FROZEN": "false", "PIXI_PROJECT_MANIFEST": "/m"}
    assert said(root / "bin/pixi", env=mine) == ["/c|false||/m|"]
    (root / "pyproject.toml").touch()
    assert said(root / "bin/pixi")[0].split("|")[3] == f"{root}/pyproject.toml"
    (root / "pixi.toml").touch()
    assert said(root / "bin/pixi")[0].split("|")[3] == f"{root}/pixi.toml"


def test_the_cache_is_where_the_installers_put_it(root: Path) -> None:
    assert Caches.of_installation(root).pixi == root / PIXI_CACHE


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_who_cannot_write_there_gets_a_cache_of_their_own() -> None:
    # Not in pytest's own folders, which are root's alone.
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        (root / ".pixi").mkdir()
        write_launchers(root)
        program(root / "runtime/bin/pixi", SHOW.format(PIXI_SHOW))
        line = said(root / "bin/pixi", env={"HOME": "/home/me"}, user=65534, group=65534)[0]
        assert line == f"/home/me/.cache/bundler/pixi|true|true|{root}/pixi.toml|"
        env = {"XDG_CACHE_HOME": "/caches"}
        assert said(root / "bin/pixi", env=env, user=65534, group=65534)[0].startswith(
            "/caches/bundler/pixi|"
        )


def test_without_a_pixi_the_message_says_how_to_name_one(root: Path) -> None:
    done = subprocess.run([root / "bin/pixi"], check=False, capture_output=True, text=True, env=CLEAN)
    assert done.returncode == 3
    assert "BUNDLER_PIXI" in done.stderr
    named = program(root.parent / "named", SHOW.format("named"))
    assert said(root / "bin/pixi", env={"BUNDLER_PIXI": str(named)}) == ["named"]


@pytest.fixture
def activated(root: Path) -> Path:
    """Return an installation with an environment that sets a variable when it is activated."""
    prefix = root / ".pixi/envs/cu128"
    program(prefix / "bin/tool", "#!/bin/sh\necho tool\n")
    script = prefix / "etc/conda/activate.d/one.sh"
    script.parent.mkdir(parents=True)
    script.write_text('export CC="$CONDA_PREFIX/bin/a b"\n')
    return root


@pytest.mark.parametrize("shell", SHELLS)
def test_the_activation_is_read_by_a_shell(activated: Path, shell: str) -> None:
    lines = said(
        shell, "-c", f'. \'{activated}/bin/activate-cu128.sh\' && tool && echo "$CC" && echo "$PATH"'
    )
    prefix = activated / ".pixi/envs/cu128"
    assert lines[:2] == ["tool", f"{prefix}/bin/a b"]
    assert lines[2].startswith(f"{prefix}/bin:")


@pytest.mark.parametrize("shell", SHELLS)
def test_the_activation_follows_a_move(activated: Path, tmp_path: Path, shell: str) -> None:
    moved = activated.rename(tmp_path / "moved")
    env = {} if shell in ("bash", "zsh") else {"BUNDLER_HOME": str(moved)}
    lines = said(shell, "-c", ". ./activate-cu128.sh && tool && echo $CC", cwd=moved / "bin", env=env)
    assert lines == ["tool", f"{moved}/.pixi/envs/cu128/bin/a b"]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_scripts_follow_the_record_of_generations(activated: Path, shell: str) -> None:
    """What counts is switched by that one file: no script is written anew, so none can say otherwise."""
    second = generations.root_of(activated, 2)
    program(second / ".pixi/envs/cu128/bin/tool", "#!/bin/sh\necho second\n")
    program(activated / "runtime/bin/pixi", '#!/bin/sh\necho "$PIXI_PROJECT_MANIFEST"\n')
    (second / "pixi.toml").write_text("")
    (activated / "pixi.toml").write_text("")
    for counting, tool, root in ((None, "tool", activated), (2, "second", second), (1, "tool", activated)):
        if counting is not None:
            generations.write(activated, Generations(current=counting, whole=(1, 2)))
        lines = said(shell, "-c", f"set -e; . '{activated}/bin/activate-cu128.sh' && tool")
        assert lines == [tool]
        assert said(activated / "bin/pixi") == [f"{root}/pixi.toml"]


@pytest.mark.parametrize("shell", SHELLS)
def test_an_environment_that_is_gone_leaves_the_shell_as_it_was(root: Path, shell: str) -> None:
    script = (
        f". '{root}/bin/activate-cu128.sh' || echo failed; echo \"$CONDA_PREFIX\"; set | grep ^_bundler_ || :"
    )
    done = subprocess.run([shell, "-c", script], check=True, capture_output=True, text=True, env=CLEAN)
    assert done.stdout.splitlines() == ["failed", ""]
    assert "there is no environment to activate" in done.stderr


def test_launchers_are_replaced_and_nothing_else_is_left(root: Path) -> None:
    (root / "bin/bundler").write_text("old")
    written = write_launchers(root, ["cu128"])
    assert sorted(path.name for path in written) == ["activate-cu128.sh", "bundler", "pixi"]
    assert sorted(path.name for path in (root / "bin").iterdir()) == ["activate-cu128.sh", "bundler", "pixi"]
    assert (root / "bin/bundler").read_text().startswith("#!/bin/sh\n")


def test_a_place_that_cannot_hold_them_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "bin").write_bytes(b"a file")
    with pytest.raises(DestinationError, match="can't write the launcher"):
        write_launchers(tmp_path)


@pytest.mark.pixi
@needs_mounts
def test_the_real_pixi_runs_in_an_installation_without_a_network(
    filled_workspace: MadeWorkspace, pixi: Path, tmp_path: Path
) -> None:
    workspace = Workspace.load(filled_workspace.root)
    installer = PixiInstaller(find_pixi())
    environment = workspace.environment("default")
    installer.install(workspace.root, [environment], Store.of(workspace.root), SILENT)
    write_launchers(workspace.root, [environment.name])
    env = {"BUNDLER_PIXI": str(pixi), "HOME": str(tmp_path)}
    wrapper = workspace.root / "bin/pixi"
    query = "import click, os; print(os.environ['DEMO_ACTIVATED'])"
    words = ["unshare", "-n", wrapper, "run", "-e", "default", "python", "-c", query]
    prefix = workspace.root / ".pixi/envs/default"
    # From elsewhere, and again when the environment has to be made anew from pixi's own cache.
    assert said(*words, env=env, cwd=tmp_path)[-1] == str(prefix)
    shutil.rmtree(prefix)
    assert said(*words, env=env, cwd=tmp_path)[-1] == str(prefix)


@pytest.mark.pixi
@needs_mounts
def test_the_real_pixi_runs_for_a_user_who_cannot_write_there(
    filled_workspace: MadeWorkspace, pixi: Path
) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "glm"
        shutil.copytree(filled_workspace.root, root)
        root.parent.chmod(0o755)
        program = Path(shutil.copy(pixi, root.parent))
        workspace = Workspace.load(root)
        PixiInstaller(find_pixi()).install(root, [workspace.environment("default")], Store.of(root), SILENT)
        write_launchers(root)
        as_nobody = ["unshare", "-n", "setpriv", "--reuid=65534", "--clear-groups", root / "bin/pixi"]
        words = ["run", "-e", "default", "python", "-c", "import sys; print(sys.prefix)"]
        # HOME doesn't exist and can't be made.
        lines = said(*as_nobody, *words, env={"BUNDLER_PIXI": str(program)}, cwd="/")
        assert lines[-1] == str(root / ".pixi/envs/default")
