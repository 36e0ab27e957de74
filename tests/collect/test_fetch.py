"""The store filled from a real server: in parallel, again after a kill, damage mended, mirrors followed."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bundler.artifact import Artifact
from bundler.collect import fetch as fetching
from bundler.collect.fetch import fetch, rate
from bundler.common.durable import locked
from bundler.common.progress import SilentReporter
from bundler.errors import DamagedError, FetchError, InputError, PreflightError
from bundler.store import Store
from tests.collect.conftest import QUICK, content, sha
from tests.support.fileserver import FileServer, Slow, Wrong

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from bundler.common.progress import Meter

PROJECT = Path(__file__).resolve().parent.parent.parent
ORIGIN = "https://files.example.invalid/"


class Counting(SilentReporter):
    """Counts what the phases count."""

    def __init__(self) -> None:
        self.phases: dict[str, tuple[int | None, int]] = {}

    def phase(
        self, name: str, total: int | None = None, *, unit: str = "B", done: int = 0
    ) -> AbstractContextManager[Meter]:
        from contextlib import contextmanager

        self.phases[name] = (total, done)
        outer = self

        class Adding:
            def advance(self, amount: int) -> None:
                before = outer.phases[name]
                outer.phases[name] = (before[0], before[1] + amount)

            def say(self, line: str) -> None:
                pass

        @contextmanager
        def opened() -> Iterator[Meter]:
            yield Adding()

        return opened()


def make(
    server: FileServer, count: int = 12, *, origin: str | None = None, sized: bool = True
) -> list[Artifact]:
    found = []
    for number in range(count):
        data = content(20_000 + 7919 * number, seed=number)
        (server.folder / f"p{number}.whl").write_bytes(data)
        url = f"{origin or server.url}p{number}.whl"
        found.append(Artifact("wheel", f"p{number}", "1", url, sha(data), len(data) if sized else None))
    return found


def partials(store: Store) -> list[Path]:
    return list(store.root.rglob("*.partial*"))


@pytest.mark.parametrize("sized", [True, False])
def test_everything_comes_and_nothing_comes_twice(server: FileServer, tmp_path: Path, sized: bool) -> None:
    artifacts = make(server, sized=sized)
    store, shown = Store(tmp_path / "store"), Counting()
    done = fetch(artifacts + artifacts[:3], store, reporter=shown, patience=QUICK)
    total = sum((server.folder / f"p{n}.whl").stat().st_size for n in range(12))
    assert (done.files, done.present, done.size) == (12, 0, total)
    assert shown.phases["fetch"] == (total, total)
    assert all(store.verify(artifact) for artifact in artifacts) and not partials(store)
    asked = len(server.requests)
    again = fetch(artifacts, store, patience=QUICK)
    assert (again.files, again.present) == (0, 12) and len(server.requests) == asked


def test_damaged_files_are_fetched_again(server: FileServer, tmp_path: Path) -> None:
    artifacts = make(server)
    store = Store(tmp_path / "store")
    fetch(artifacts, store, patience=QUICK)
    altered, short, gone = (store.path(artifacts[n].url) for n in (1, 5, 9))
    altered.write_bytes(b"\0" * altered.stat().st_size)
    os.truncate(short, 100)
    gone.unlink()
    server.requests.clear()
    assert fetch(artifacts, store, patience=QUICK).files == 3
    assert sorted(one.path for one in server.gets()) == ["/p1.whl", "/p5.whl", "/p9.whl"]
    assert all(store.verify(artifact) for artifact in artifacts)


def test_deep_finds_damage_that_left_no_trace(server: FileServer, tmp_path: Path) -> None:
    artifacts = make(server, 3)
    store = Store(tmp_path / "store")
    fetch(artifacts, store, patience=QUICK)
    path = store.path(artifacts[0].url)
    path.write_bytes(b"\0" * path.stat().st_size)
    # As if the disk had lost the bytes under an unchanged file.
    store.record({one: str(one.sha256) for one in artifacts})
    assert fetch(artifacts, store, patience=QUICK).files == 0
    assert fetch(artifacts, store, deep=True, patience=QUICK).files == 1
    assert store.verify(artifacts[0])


def test_one_failure_does_not_keep_the_others(server: FileServer, tmp_path: Path) -> None:
    artifacts = make(server)
    (server.folder / "p3.whl").unlink()
    (server.folder / "p4.whl").unlink()
    store = Store(tmp_path / "store")
    with pytest.raises(FetchError) as caught:
        fetch(artifacts, store, patience=QUICK)
    assert {finding.split(":")[0] for finding in caught.value.findings} == {"p3-1", "p4-1"}
    assert "404" in str(caught.value) and caught.value.hint
    assert len(store.missing(artifacts)) == 2


def test_wrong_bytes_from_a_host(server: FileServer, tmp_path: Path) -> None:
    artifacts = make(server, 3)
    server.always("/p1.whl", Wrong())
    store = Store(tmp_path / "store")
    with pytest.raises(DamagedError, match=r"p1\.whl") as caught:
        fetch(artifacts, store, patience=QUICK)
    assert caught.value.exit_code == 5
    assert not store.path(artifacts[1].url).exists() and not partials(store)


def only_md5(artifact: Artifact, data: bytes) -> Artifact:
    digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return replace(artifact, kind="conda", sha256=None, md5=digest)


def test_a_package_with_an_md5_alone_is_checked_by_it_and_its_sha256_recorded(
    server: FileServer, tmp_path: Path
) -> None:
    artifacts = [only_md5(one, (server.folder / f"{one.name}.whl").read_bytes()) for one in make(server, 3)]
    server.always("/p1.whl", Wrong())
    store = Store(tmp_path / "store")
    with pytest.raises(DamagedError, match=r"p1\.whl") as caught:
        fetch(artifacts, store, patience=QUICK)
    assert any(f"expected md5 {artifacts[1].md5}" in finding for finding in caught.value.findings)
    assert not store.path(artifacts[1].url).exists() and not partials(store)
    for one in (artifacts[0], artifacts[2]):
        assert store.sha256(one) == sha(store.path(one.url).read_bytes())


def test_without_a_network_it_ends_soon(tmp_path: Path) -> None:
    artifacts = [
        Artifact("wheel", f"p{n}", "1", f"http://127.0.0.1:9/p{n}.whl", "0" * 64, 10) for n in range(200)
    ]
    start = time.monotonic()
    with pytest.raises(FetchError) as caught:
        fetch(artifacts, Store(tmp_path), patience=QUICK)
    assert time.monotonic() - start < 10
    assert len(caught.value.findings) < 20 and caught.value.hint and "HTTPS_PROXY" in caught.value.hint


def test_mirrors_of_the_workspace(server: FileServer, tmp_path: Path) -> None:
    artifacts = make(server, origin=ORIGIN)
    workspace = tmp_path / "ws"
    (workspace / ".pixi").mkdir(parents=True)
    (workspace / ".pixi/config.toml").write_text(
        f'[mirrors]\n"{ORIGIN}" = ["http://127.0.0.1:9/", "{server.url}"]\n'
    )
    store = Store.of(workspace)
    fetch(artifacts, store, workspace=workspace, patience=QUICK)
    assert store.path(artifacts[0].url) == workspace / ".pkg-cache/mirror/files.example.invalid/p0.whl"
    assert not store.missing(artifacts)


def test_mirrors_and_channels_that_are_folders(server: FileServer, tmp_path: Path) -> None:
    mirrored = make(server, 4, origin=ORIGIN)
    local = [
        Artifact("conda", "c", "1", (server.folder / f"p{n}.whl").as_uri(), mirrored[n].sha256)
        for n in range(2)
    ]
    workspace = tmp_path / "ws"
    (workspace / ".pixi").mkdir(parents=True)
    (workspace / ".pixi/config.toml").write_text(f'[mirrors]\n"{ORIGIN}" = ["{server.folder.as_uri()}"]\n')
    store = Store.of(workspace)
    done = fetch([*mirrored, *local], store, workspace=workspace)
    assert done.files == 6 and not store.missing([*mirrored, *local])
    assert server.requests == []
    assert store.path(mirrored[0].url).stat().st_nlink == 1, "a link would share damage"
    (server.folder / "p3.whl").write_bytes(b"\0" * mirrored[3].size)  # type: ignore[operator]
    store.path(mirrored[3].url).unlink()
    with pytest.raises(DamagedError):
        fetch(mirrored, store, workspace=workspace)


def test_mirrors_that_cannot_be_asked(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / ".pixi").mkdir()
    (tmp_path / ".pixi/config.toml").write_text(f'[mirrors]\n"{ORIGIN}" = ["oci://x.invalid/y"]\n')
    with pytest.raises(InputError, match="oci://"):
        fetch(make(server, 1, origin=ORIGIN), Store.of(tmp_path), workspace=tmp_path)


def test_space_is_checked_first(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(1000))
    with pytest.raises(PreflightError, match="kB more"):
        fetch(make(server), Store(tmp_path / "store"))
    assert server.gets() == []


def wait_for(condition: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.01)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_killed_and_run_again(server: FileServer, tmp_path: Path, end: signal.Signals) -> None:
    store = Store(tmp_path / "store")
    big = content(4 << 20, seed=99)
    for number in range(8):
        server.always(f"/p{number}.whl", Slow(50_000, 0.03))
    artifacts = make(server, 8)
    (server.folder / "p7.whl").write_bytes(big)
    artifacts[7] = Artifact("wheel", "p7", "1", f"{server.url}p7.whl", sha(big), len(big))
    process = run_fetch_of(store.root, artifacts)
    large = store.path(artifacts[7].url)
    partial = large.with_name(large.name + ".partial")
    wait_for(lambda: partial.exists() and partial.stat().st_size >= 1 << 20)
    start = time.monotonic()
    process.send_signal(end)
    process.wait(10)
    assert time.monotonic() - start < 5, "an interrupt ends the process at once"
    assert not large.exists()
    kept = partial.stat().st_size
    server.requests.clear()
    server._always.clear()
    fetch(artifacts, store, patience=QUICK)
    assert all(store.verify(artifact) for artifact in artifacts) and not partials(store)
    assert large.read_bytes() == big
    assert [one.range for one in server.gets("/p7.whl")] == [f"bytes={kept}-"]


def run_fetch_of(store: Path, artifacts: list[Artifact]) -> subprocess.Popen[bytes]:
    """Start a fetch in a process of its own."""
    script = (
        "import sys; from pathlib import Path\n"
        "from bundler.artifact import Artifact\n"
        "from bundler.collect.fetch import fetch\n"
        "from bundler.store import Store\n"
        "rows = [line.split() for line in sys.stdin]\n"
        "fetch([Artifact('wheel', r[0], '1', r[1], r[2], int(r[3])) for r in rows],"
        " Store(Path(sys.argv[1])), jobs=3)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(store)],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=PROJECT,
    )
    assert process.stdin
    process.stdin.write("\n".join(f"{a.name} {a.url} {a.sha256} {a.size}" for a in artifacts).encode())
    process.stdin.close()
    return process


def test_two_fetches_of_one_store_take_turns(server: FileServer, tmp_path: Path) -> None:
    artifacts = make(server, 4)
    store = Store(tmp_path / "store")
    store.memory.mkdir(parents=True)
    with locked(store.memory / "fetch.lock", pytest.fail):
        process = run_fetch_of(store.root, artifacts)
        time.sleep(1.0)
        assert process.poll() is None and server.requests == []
    assert process.wait(20) == 0
    assert not store.missing(artifacts)


def test_the_rate_is_remembered(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "WORTH_MEASURING", 1000)
    store = Store(tmp_path / "store")
    assert rate(store) is None
    fetch(make(server, 4), store)
    assert (rate(store) or 0) > 1000
