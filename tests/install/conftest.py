"""What the installers' tests share: a stand-in pixi that says how it was called, and watched mirrors."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from bundler.install import native, pixi
from bundler.install.mirror import LoopbackMirror
from bundler.store import Store
from bundler.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bundler.workspace import EnvironmentLock
    from tests.conftest import MadeWorkspace

STAND_IN = """#!{python} -I
import json, os, sys
from pathlib import Path
if sys.argv[1:] == ["--version"]:
    print({version!r})
    sys.exit(0)
config = os.environ.get("PIXI_CONFIG_FILE")
seen = dict(argv=sys.argv[1:], env=dict(os.environ), cwd=os.getcwd(),
            config=Path(config).read_text() if config else None,
            workspace_config=Path(".pixi/config.toml").exists(),
            home=sorted(os.listdir(os.environ["HOME"])))
Path({record!r}).write_text(json.dumps(seen))
{then}
"""


@dataclass(frozen=True)
class StandIn:
    """A program in pixi's place."""

    path: Path
    record: Path

    @property
    def seen(self) -> dict[str, Any]:
        """How it was called last."""
        found: dict[str, Any] = json.loads(self.record.read_text())
        return found


@dataclass
class Stage:
    """A workspace with a filled store."""

    root: Path
    workspace: Workspace
    store: Store
    mirrors: list[LoopbackMirror] = field(default_factory=list)
    """Those that installers started, in order."""

    def environments(self, *names: str) -> Sequence[EnvironmentLock]:
        return [self.workspace.environment(name) for name in names]

    def artifact(self, name: str) -> Path:
        """Return the file of a package in the store."""
        for environment in self.workspace.environments.values():
            for one in environment.artifacts:
                if one.name == name:
                    return self.store.path(one.url)
        raise LookupError(name)

    def asked(self) -> list[str]:
        """Return what the mirrors were asked, as ``METHOD STATUS PATH``."""
        return [f"{one.method} {one.status} {one.path}" for mirror in self.mirrors for one in mirror.requests]


def leave_md5_alone(stage: Stage) -> None:
    """Take each package's sha256 out of the lock, and leave its md5."""
    lock = stage.root / "pixi.lock"
    text = lock.read_text()
    for environment in stage.workspace.environments.values():
        for one in environment.artifacts:
            data = stage.store.path(one.url).read_bytes()
            md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
            stated = "" if one.kind == "conda" else f"  md5: {md5}\n"
            text = text.replace(f"  sha256: {one.sha256}\n", stated)
    lock.write_text(text)
    stage.workspace = Workspace.load(stage.root)
    assert all(one.md5 for one in stage.environments("default")[0].artifacts)


def stand_in(folder: Path, version: str = "pixi 0.77.0", then: str = "") -> StandIn:
    """Write a stand-in; ``then`` is Python that it runs last."""
    folder.mkdir(parents=True, exist_ok=True)
    path, record = folder / "pixi", folder / "seen.json"
    path.write_text(STAND_IN.format(python=sys.executable, version=version, record=str(record), then=then))
    path.chmod(0o755)
    return StandIn(path, record)


@pytest.fixture
def stage(filled_workspace: MadeWorkspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """Return a workspace whose store holds everything, and watch the mirrors."""
    root = filled_workspace.root
    made = Stage(root, Workspace.load(root), Store.of(root))

    class Watched(LoopbackMirror):
        def __enter__(self) -> LoopbackMirror:
            made.mirrors.append(self)
            return super().__enter__()

    monkeypatch.setattr(pixi, "LoopbackMirror", Watched)
    monkeypatch.setattr(native, "LoopbackMirror", Watched)
    yield made
