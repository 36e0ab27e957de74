"""What every room of tests shares: the demo's parts made once, skips for what isn't here, no network."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from bundler.common.durable import locked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.workspace import DemoWorkspace

T = TypeVar("T")
PROJECT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class MadeWorkspace:
    """A copy of the demo's workspace that one test may change."""

    root: Path
    """Holds ``pixi.toml``, ``pixi.lock``, ``.pixi/config.toml`` and, where asked for, ``.pkg-cache``."""
    made: DemoWorkspace


def find_pixi() -> Path | None:
    """Return the pixi that ``BUNDLER_PIXI`` names, or the one on PATH."""
    named = os.environ.get("BUNDLER_PIXI") or shutil.which("pixi")
    return Path(named) if named else None


def has_gpu() -> bool:
    """Return whether a GPU driver is loaded on this machine."""
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidiactl").exists()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take how much the fault harness is to do."""
    group = parser.getgroup("faults")
    group.addoption("--fault-rounds", type=int, default=200, help="rounds of tests/faults")
    group.addoption("--fault-seed", type=int, default=0, help="seed of tests/faults; 0: a new one")
    group.addoption("--fault-only", default="", help="pack, unpack, fetch or install alone")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the counts that tests recorded, wherever they ran: of faults, hostile bundles, planted places."""
    found: dict[str, list[str]] = {"faults": [], "hostile": [], "planted": []}
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, ()):
            for name, text in getattr(report, "user_properties", ()):
                if name in found:
                    found[name].append(text)
    for line in found["faults"]:
        terminalreporter.write_line(line)
    if cases := found["hostile"]:
        said = "; ".join(cases)
        words = {"escape": "escapes", "hang of": "hangs", "defect of": "defects", "excess of": "excesses"}
        counts = ", ".join(f"{said.count(word)} {name}" for word, name in words.items())
        terminalreporter.write_line(f"hostile: {len(cases)} bundles, {counts}")
    if places := found["planted"]:
        through = sum(map(bool, places))
        terminalreporter.write_line(f"planted: {len(places)} destinations, {through} written through")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a part that isn't on this machine."""
    if item.get_closest_marker("pixi") and find_pixi() is None:
        pytest.skip("no pixi: neither on PATH nor named by BUNDLER_PIXI")
    if item.get_closest_marker("gpu") and not has_gpu():
        pytest.skip("no NVIDIA driver on this machine")


def pytest_configure() -> None:
    """Take interrupts, also where the run was started in the background of a script.

    A shell starts such a job with SIGINT ignored. Children inherit that, and a Python that finds it ignored
    leaves it so: a test that interrupts a child would wait for ever.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a test fail that connects to anything but this machine; what child processes do is their own."""
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, _guarded(getattr(socket.socket, name)))


def _guarded(connect: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(self: socket.socket, address: Any) -> Any:
        if self.family != socket.AF_UNIX and self.type & socket.SOCK_STREAM:
            host = str(address[0])
            if not (host in ("localhost", "::1") or host.startswith("127.")):
                # Not an Exception: code under test that retries or reports OSErrors must not swallow it.
                pytest.fail(f"this test connects to {host}: only loopback is allowed", pytrace=True)
        return connect(self, address)

    return guarded


def shared(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], T]) -> T:
    """Make something once for all workers of this run; what ``make`` returns is handed on pickled."""
    base = factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        base = base.parent
    folder, note = base / f"shared-{name}", base / f"shared-{name}.pickle"
    with locked(base / f"shared-{name}.lock", lambda: None):
        if not note.exists():
            folder.mkdir(exist_ok=True)
            note.write_bytes(pickle.dumps(make(folder)))
        made: T = pickle.loads(note.read_bytes())
    return made


@pytest.fixture(scope="session")
def demo_workspace(tmp_path_factory: pytest.TempPathFactory) -> DemoWorkspace:
    """Return a workspace with the environments ``default``, ``extra`` and ``bundler``; not to be changed."""
    from tests.support.workspace import DEFAULT, EXTRA, RUNTIME, make_workspace

    def make(folder: Path) -> DemoWorkspace:
        return make_workspace(folder, environments=(DEFAULT, EXTRA, RUNTIME))

    return shared(tmp_path_factory, "workspace", make)


@pytest.fixture(scope="session")
def conda_channel(demo_workspace: DemoWorkspace) -> Path:
    """Return the folder of an indexed conda channel; not to be changed."""
    return demo_workspace.channel


@pytest.fixture(scope="session")
def demo_store(tmp_path_factory: pytest.TempPathFactory, demo_workspace: DemoWorkspace) -> Path:
    """Return a ``.pkg-cache`` that holds every artifact of the demo's lock; not to be changed."""

    def make(folder: Path) -> Path:
        store = folder / ".pkg-cache"
        words = [demo_workspace.root / "pixi.lock", demo_workspace.channel, store]
        subprocess.run([sys.executable, "-m", "tests.support.filled_store", *words], cwd=PROJECT, check=True)
        return store

    return shared(tmp_path_factory, "store", make)


@pytest.fixture
def workspace_copy(tmp_path: Path, demo_workspace: DemoWorkspace) -> MadeWorkspace:
    """Return a copy of the demo's workspace, without a store, that the test may change."""
    root = tmp_path / "workspace"
    shutil.copytree(demo_workspace.root, root)
    return MadeWorkspace(root, demo_workspace)


@pytest.fixture
def filled_workspace(workspace_copy: MadeWorkspace, demo_store: Path) -> MadeWorkspace:
    """Return a copy of the demo's workspace with its store filled, that the test may change."""
    shutil.copytree(demo_store, workspace_copy.root / ".pkg-cache")
    return workspace_copy


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the tiny GLM-4-MoE model; not to be changed."""
    from tests.support.tinymodel import make_model

    return shared(tmp_path_factory, "model", lambda folder: make_model(folder / "tiny-glm4-moe"))


@pytest.fixture
def pixi() -> Iterator[Path]:
    """Return the real pixi; the test is marked ``pixi``."""
    found = find_pixi()
    if found is None:
        pytest.skip("no pixi: neither on PATH nor named by BUNDLER_PIXI")
    yield found
