"""The demo's workspace is a real one: py-rattler reads its lock, and pixi installs it."""

from __future__ import annotations

import hashlib
import os
import subprocess
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from tests.support.workspace import CHANNEL, write_workspace

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MadeWorkspace
    from tests.support.workspace import DemoWorkspace


def test_rattler_reads_the_lock(demo_workspace: DemoWorkspace) -> None:
    import rattler

    lock = rattler.LockFile.from_path(demo_workspace.root / "pixi.lock")
    found = {
        name: {package.name for package in environment.packages(lock.platforms()[0]) or ()}
        for name, environment in lock.environments()
    }
    assert found["extra"] == {"python", "click", "packaging"}
    assert {"python", "demo-notes", "demo-greeting", "msgspec", "markupsafe"} <= found["default"]


@pytest.mark.parametrize("version", [6, 7])
def test_rattler_reads_both_formats(workspace_copy: MadeWorkspace, version: int) -> None:
    import dataclasses

    import rattler

    made = dataclasses.replace(workspace_copy.made, root=workspace_copy.root)
    write_workspace(made, version)
    assert yaml.safe_load((made.root / "pixi.lock").read_text())["version"] == version
    lock = rattler.LockFile.from_path(made.root / "pixi.lock")
    wheels = lock.environment("default").pypi_packages()  # type: ignore[union-attr]
    assert {wheel.hashes.sha256.hex() for some in wheels.values() for wheel in some} == {
        wheel.sha256 for wheel in made.wheels["default"]
    }


def test_the_same_input_gives_the_same_lock(workspace_copy: MadeWorkspace) -> None:
    import dataclasses

    before = (workspace_copy.root / "pixi.lock").read_bytes()
    write_workspace(dataclasses.replace(workspace_copy.made, root=workspace_copy.root))
    assert (workspace_copy.root / "pixi.lock").read_bytes() == before


def test_the_store_holds_what_the_lock_names(demo_workspace: DemoWorkspace, demo_store: Path) -> None:
    document = yaml.safe_load((demo_workspace.root / "pixi.lock").read_text())
    for package in document["packages"]:
        parts = urlsplit(package.get("conda") or package["pypi"])
        path = demo_store / "mirror" / parts.netloc / unquote(parts.path).lstrip("/")
        assert hashlib.sha256(path.read_bytes()).hexdigest() == package["sha256"]


@pytest.mark.pixi
def test_pixi_installs_the_lock(filled_workspace: MadeWorkspace, pixi: Path, tmp_path: Path) -> None:
    root, asked = filled_workspace.root, list[str]()
    mirror = root / ".pkg-cache" / "mirror"

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *words: object) -> None:
            super().__init__(*words, directory=str(mirror))  # type: ignore[arg-type]

        def log_request(self, *_: object) -> None:
            asked.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        hosts = sorted(path.name for path in mirror.iterdir())
        lines = [f'"https://{host}/" = ["http://127.0.0.1:{server.server_port}/{host}/"]' for host in hosts]
        (tmp_path / "config.toml").write_text("\n".join(["[mirrors]", *lines]))
        (root / ".pixi" / "config.toml").unlink()
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path / "home"),
            "PIXI_CACHE_DIR": str(tmp_path / "cache"),
            "PIXI_CONFIG_FILE": str(tmp_path / "config.toml"),
            "NO_PROXY": "127.0.0.1",
        }
        before = (root / "pixi.lock").read_bytes()
        run = [str(pixi), "install", "--frozen", "-e", "default", "-e", "extra"]
        subprocess.run(run, cwd=root, env=environment, check=True, timeout=120)
        # Satisfiable too, not only taken as it is.
        subprocess.run([str(pixi), "lock", "--check"], cwd=root, env=environment, check=True, timeout=60)
        server.shutdown()

    document = yaml.safe_load(before)
    # Each once, though both environments have it; the environment bundler isn't asked for.
    installed = [document["environments"][name]["packages"]["linux-64"] for name in ("default", "extra")]
    wanted = {urlsplit(one.get("conda") or one["pypi"]) for rows in installed for one in rows}
    assert sorted(map(unquote, asked)) == sorted(f"/{one.netloc}{unquote(one.path)}" for one in wanted)
    assert (root / "pixi.lock").read_bytes() == before

    words = (
        "import click, msgspec, os, demo_greeting; demo_greeting.main(); print(os.environ['DEMO_ACTIVATED'])"
    )
    run = [str(pixi), "run", "--as-is", "python", "-c", words]
    answer = subprocess.run(run, cwd=root, env=environment, check=True, capture_output=True, text=True)
    assert answer.stdout.split() == ["hello", str(root / ".pixi" / "envs" / "default")]


def test_the_channels_address_leads_nowhere() -> None:
    assert urlsplit(CHANNEL).hostname.endswith(".invalid")  # type: ignore[union-attr]
