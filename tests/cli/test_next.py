"""The line to type next is one that works: copied as it is printed, it is run."""

from __future__ import annotations

import importlib
import json
import os
import pwd
import re
import shlex
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from bundler.cli.main import MODULES, run
from bundler.cli.output import say
from bundler.cli.typed import ON_INSTALLATION, ON_WORKSPACE, by_root, typed
from bundler.installation import RUN
from tests.cli.conftest import run_bundler
from tests.serve.conftest import Bench, bench

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["bench"]


def test_after_an_unpack_with_two_models(packed: Path, tmp_path: Path) -> None:
    """Only what is missing is asked for: the model, as there are two."""
    model = packed.parents[1] / "tiny-glm4-moe"
    other = shutil.copytree(model, tmp_path / "another")
    words = ("pack", "-C", packed.parents[1] / "workspace", "--env", "default", "--no-rehearse")
    done = run_bundler(*words, "--model", model, "--model", other, "-o", tmp_path / "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (bundle,) = (tmp_path / "out").iterdir()
    done = run_bundler("unpack", bundle, tmp_path / "g l m", "--installer", "native", "--json", cwd=tmp_path)
    line = json.loads(done.stdout)["next"]
    assert line == f"cd {shlex.quote(str(tmp_path / 'g l m'))} && bin/bundler serve --model another"
    ran = subprocess.run(
        ["sh", "-c", f"{line} --dry-run --tp-size 1"], capture_output=True, text=True, timeout=60
    )
    assert "which model" not in ran.stderr and "which environment" not in ran.stderr
    assert ran.returncode == 0, ran.stderr


def test_an_installations_own_bundler_is_named_by_its_path(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bench.root / "bin").mkdir()
    program = bench.root / "bin" / "bundler"
    program.write_text(
        f'#!/bin/sh\nBUNDLER_INSTALLATION={bench.root} exec {sys.executable} -m bundler "$@"\n'
    )
    program.chmod(0o755)
    own = {**bench.env, "BUNDLER_INSTALLATION": str(bench.root), "PATH": "/usr/bin:/bin"}
    words = [sys.executable, "-m", "bundler", "status"]
    done = subprocess.run(words, env=own, capture_output=True, text=True, cwd="/")
    assert f"start it with: {program} serve --detach\n" in done.stderr
    listed = json.loads(
        subprocess.run([*words, "--json"], env=own, capture_output=True, text=True, cwd="/").stdout
    )
    assert listed["error"]["fix"] == f"start it with: {program} serve --detach"
    on_path = own | {"PATH": f"{program.parent}:/usr/bin:/bin"}
    done = subprocess.run(words, env=on_path, capture_output=True, text=True, cwd="/")
    assert "start it with: bundler serve --detach\n" in done.stderr


def test_other_words_stay(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("BUNDLER_INSTALLATION", "/opt/g l m")
    monkeypatch.setenv("PATH", "/nowhere")
    assert typed("see: bundler logs", {}) == "see: '/opt/g l m/bin/bundler' logs"
    say("see: bundler logs")
    assert capsys.readouterr().err == "see: '/opt/g l m/bin/bundler' logs\n"
    for text in ("another bundler is at work", "bin/bundler serve", "bundler.toml", "the bundler statuses"):
        assert typed(text, {}) == text
    monkeypatch.delenv("BUNDLER_INSTALLATION")
    assert typed("see: bundler logs", {}) == "see: bundler logs"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file to another user")
@pytest.mark.parametrize("command", ["status", "stop", "logs"])
def test_a_server_of_another_user_is_not_called_none(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    record = bench.root / RUN / "server-30000.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    os.chown(record, pwd.getpwnam("nobody").pw_uid, -1)
    access = os.access
    # Root may write anywhere, so that the kernel's answer is played.
    monkeypatch.setattr(
        os, "access", lambda path, mode, **more: RUN not in str(path) and access(path, mode, **more)
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(bench.tmp / "own"))
    with pytest.raises(SystemExit) as ended:
        run([command, "-C", str(bench.root)])
    assert ended.value.code == 14
    said = capsys.readouterr().err
    assert "of nobody there is one" in said
    assert f"  fix:   as that user: sudo -u nobody bundler {command} -C {bench.root}\n" in said


def test_the_folder_that_was_named_is_named_again(bench: Bench) -> None:
    (bench.tmp / "elsewhere").mkdir()
    words = [sys.executable, "-m", "bundler", "status", "-C", "../../installation"]
    done = subprocess.run(
        words, env=bench.env, capture_output=True, text=True, cwd=bench.tmp / "elsewhere", check=False
    )
    assert f"start it with: bundler serve -C {bench.root} --detach\n" in done.stderr


def test_every_command_with_such_a_folder_is_known() -> None:
    """``-C`` of one kind is never put behind a command that takes none, or another kind."""
    found: dict[str, list[str]] = {"--workspace": [], "--installation": []}
    for name, module in MODULES.items():
        for option in getattr(importlib.import_module(module), f"{name}_command").params:
            for word in set(option.opts) & set(found):
                assert "-C" in option.opts
                found[word].append(name)
    assert found == {"--workspace": sorted_as(ON_WORKSPACE), "--installation": sorted_as(ON_INSTALLATION)}


def sorted_as(names: tuple[str, ...]) -> list[str]:
    return sorted(names, key=list(MODULES).index)


@pytest.mark.parametrize(("user", "shown"), [(0, "systemctl x"), (1000, "sudo systemctl x")])
def test_root_needs_no_sudo(monkeypatch: pytest.MonkeyPatch, user: int, shown: str) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert by_root("systemctl x") == shown


def test_the_server_to_stop_is_named_where_several_run(bench: Bench) -> None:
    assert bench.run(*bench.serve("--detach")).stdout.endswith("end it with: bundler stop\n")
    other = bench.serve("--detach", "--no-doctor")
    port = str(bench.port + 1)
    done = bench.run(*[port if word == str(bench.port) else word for word in other])
    line = re.search(r"end it with: bundler (.*)\n", done.stdout)
    assert line and line[1] == f"stop --port {port}", done.stderr
    stopped = bench.run(*shlex.split(line[1]))
    assert stopped.returncode == 0, stopped.stderr
    assert bench.run("stop").returncode == 0
