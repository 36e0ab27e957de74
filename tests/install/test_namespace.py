from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from bundler.install import namespace
from bundler.install.namespace import (
    Isolation,
    NoIsolationError,
    child_environment,
    find_isolation,
    forbidding_settings,
    ways,
)
from bundler.install.namespace_child import NO_COMMAND, NOT_ISOLATED, has_route, raise_loopback

if TYPE_CHECKING:
    from pathlib import Path

TALK = """
import socket, threading
from bundler.install.namespace_child import has_route, raise_loopback
server = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=lambda: server.accept()[0].sendall(b"hello"), daemon=True).start()
with socket.create_connection(server.getsockname(), timeout=5) as one:
    print(one.recv(5).decode(), has_route(), raise_loopback())
names = [name for _, name in socket.if_nameindex() if name == "lo"]
print(names)
try:
    socket.create_connection(("192.0.2.1", 80), timeout=5)
except OSError as problem:
    print(type(problem).__name__, problem.errno)
"""


def run(way: Isolation, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        way.command(command),
        env=child_environment(os.environ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def isolation() -> Isolation:
    try:
        return find_isolation()
    except NoIsolationError as problem:
        pytest.skip(str(problem))


@pytest.mark.parametrize("name", ["unshare -n", "unshare -rn", "bwrap"])
def test_each_way_that_works_cuts_the_network_and_raises_loopback(name: str) -> None:
    found = [way for way in ways() if way.name == name and namespace._try(way) is None]
    if not found:
        pytest.skip(f"{name} doesn't work here")
    done = run(found[0], sys.executable, "-c", TALK)
    assert done.stdout.splitlines() == ["hello False False", "['lo']", "OSError 101"], done.stderr
    assert done.returncode == 0


def test_the_exit_code_is_the_commands(isolation: Isolation) -> None:
    assert run(isolation, "sh", "-c", "exit 41").returncode == 41
    absent = run(isolation, "no-such-program-anywhere")
    assert absent.returncode == NO_COMMAND
    assert "no-such-program-anywhere" in absent.stderr


def test_a_folder_of_the_caller_does_not_shadow_bundler(
    isolation: Isolation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bundler.py").write_text("raise SystemExit('shadowed')\n")
    (tmp_path / "socket.py").write_text("raise SystemExit('shadowed')\n")
    monkeypatch.chdir(tmp_path)
    assert run(isolation, "true").returncode == 0


def test_no_isolation_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A way that doesn't cut the network is refused by the inner side, so it never counts as one."""
    if not has_route():
        pytest.skip("this host has no route")
    pretended = Isolation("pretended", ("env",))
    assert run(pretended, "true").returncode == NOT_ISOLATED
    monkeypatch.setattr(namespace, "ways", lambda: [pretended])
    with pytest.raises(NoIsolationError, match="pretended: error: there is still a route"):
        find_isolation()


def test_nothing_to_cut_it_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoIsolationError, match="neither unshare"):
        find_isolation()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kernel/unprivileged_userns_clone", "0"),
        ("user/max_user_namespaces", "0"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1"),
    ],
)
def test_the_forbidding_setting_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text(value + "\n")
    spelled = name.replace("/", ".")
    assert forbidding_settings(tmp_path) == [f"forbidden by {spelled}={value}"]
    monkeypatch.setattr(namespace, "ways", list)
    monkeypatch.setattr(namespace, "forbidding_settings", lambda: forbidding_settings(tmp_path))
    with pytest.raises(NoIsolationError) as caught:
        find_isolation()
    assert f"sysctl -w {spelled}=" in str(caught.value)
    (tmp_path / name).write_text("5\n")
    assert forbidding_settings(tmp_path) == []


def test_loopback_of_this_host_is_up() -> None:
    assert raise_loopback() is False
