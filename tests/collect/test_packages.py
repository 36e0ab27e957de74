"""What packages take once installed, against packages that were unpacked for real."""

from __future__ import annotations

import bz2
import ensurepip
import hashlib
import io
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from bundler.archive.member import FileSource
from bundler.artifact import Artifact
from bundler.collect.entries import environment_entry, installed_size, store_members, workspace_members
from bundler.collect.fetch import fetch
from bundler.errors import DamagedError, FetchError
from bundler.store import Store
from bundler.workspace import EnvironmentLock, Workspace

if TYPE_CHECKING:
    from tests.conftest import MadeWorkspace

WHEEL = next((Path(ensurepip.__file__).parent / "_bundled").glob("*.whl"))


def real_size(folder: Path, *, leave: str | None = None) -> tuple[int, int]:
    """Return the bytes and inodes below a folder."""
    below = [
        path for path in folder.rglob("*") if leave is None or path.relative_to(folder).parts[0] != leave
    ]
    return sum(path.stat().st_size for path in below if path.is_file() and not path.is_symlink()), len(below)


def test_a_wheel(tmp_path: Path) -> None:
    with zipfile.ZipFile(WHEEL) as archive:
        archive.extractall(tmp_path / "unpacked")
    assert installed_size(WHEEL) == real_size(tmp_path / "unpacked")


def conda_package() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, size in (("info/index.json", 10), ("lib/a/b.so", 1000), ("bin/x", 5)):
            member = tarfile.TarInfo(name)
            member.size = size
            archive.addfile(member, io.BytesIO(b"x" * size))
    return bz2.compress(data.getvalue())


def test_an_old_conda_package(tmp_path: Path) -> None:
    path = tmp_path / "a-1-0.tar.bz2"
    path.write_bytes(conda_package())
    assert installed_size(path) == (1015, 3 + 4)


@pytest.mark.parametrize("name", ["a-1-py3-none-any.whl", "a-1-0.conda", "a-1-0.tar.bz2"])
@pytest.mark.parametrize("data", [b"", b"no archive at all", WHEEL.read_bytes()[:5000]])
def test_broken_archives(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(DamagedError, match=name):
        installed_size(path)


def test_the_row_of_a_wheel(tmp_path: Path) -> None:
    digest = hashlib.sha256(WHEEL.read_bytes()).hexdigest()
    artifact = Artifact("wheel", "w", "1", f"https://h.example.invalid/{WHEEL.name}", digest)
    store = Store(tmp_path)
    store.path(artifact.url).parent.mkdir(parents=True)
    store.path(artifact.url).write_bytes(WHEEL.read_bytes())
    (row,) = environment_entry(EnvironmentLock("e", (), "linux-64", (artifact,)), store).packages
    path = f".pkg-cache/mirror/h.example.invalid/{WHEEL.name}"
    assert (row.size, row.path, row.sha256) == (WHEEL.stat().st_size, path, digest)
    assert row.installed_bytes > row.size and row.inodes > 10


def test_packages_of_an_md5_alone_are_named_and_carry_their_sha256(tmp_path: Path) -> None:
    data = conda_package()
    fixed = hashlib.sha256(data).hexdigest()
    known = Artifact("conda", "b", "1", "https://h.example.invalid/b-1-0.tar.bz2", fixed, len(data))
    loose = replace(
        known,
        name="a",
        url="https://h.example.invalid/a-1-0.tar.bz2",
        sha256=None,
        md5=hashlib.md5(data, usedforsecurity=False).hexdigest(),
    )
    store = Store(tmp_path)
    for one in (known, loose):
        store.path(one.url).parent.mkdir(parents=True, exist_ok=True)
        store.path(one.url).write_bytes(data)
    assert not store.missing([known, loose])
    environment = EnvironmentLock("e", (), "linux-64", (loose, known))
    entry = environment_entry(environment, store)
    assert entry.md5_only == (".pkg-cache/mirror/h.example.invalid/a-1-0.tar.bz2",)
    assert [row.sha256 for row in entry.packages] == [fixed, fixed]
    assert [member.sha256 for member in store_members([environment], store)] == [fixed, fixed]
    assert msgspec.json.decode(msgspec.json.encode(entry), type=type(entry)) == entry
    others = environment_entry(EnvironmentLock("e", (), "linux-64", (known,)), store)
    assert b"md5" not in msgspec.json.encode(others)


def test_a_real_channel_fetched_and_described(workspace_copy: MadeWorkspace, tmp_path: Path) -> None:
    rattler = pytest.importorskip("rattler.package_streaming")
    root = workspace_copy.root
    workspace = Workspace.load(root)
    whole = workspace.environment("default")
    conda = [artifact for artifact in whole.artifacts if artifact.kind == "conda"]
    environment = type(whole)(**{**vars(whole), "artifacts": tuple(conda)})
    store = Store.of(root)
    with pytest.raises(FetchError, match="not in the store"):
        environment_entry(environment, store)
    assert fetch(conda, store, workspace=root).files == len(conda) >= 4

    entry = environment_entry(environment, store, imports=("sys",))
    assert entry.python == workspace_copy.made.python_version and entry.imports == ("sys",)
    assert entry.stack == environment.stack
    for package in entry.packages:
        folder = tmp_path / "unpacked" / package.name
        rattler.extract(root / package.path, folder)
        size, inodes = real_size(folder, leave="info")
        assert size <= package.installed_bytes <= real_size(folder)[0]
        assert inodes <= package.inodes <= real_size(folder)[1]
    assert environment_entry(environment, store, imports=("sys",)) == entry, "from memory"

    members = store_members([environment, environment], store)
    assert [member.path for member in members] == sorted(package.path for package in entry.packages)
    for member in members:
        assert isinstance(member.source, FileSource) and member.size == member.source.path.stat().st_size
        assert hashlib.sha256(member.source.path.read_bytes()).hexdigest() == member.sha256
    assert [member.path for member in workspace_members(workspace)] == ["pixi.lock", "pixi.toml"]


def test_a_broken_package_is_named_by_the_entry(tmp_path: Path) -> None:
    store = Store(tmp_path)
    digest = hashlib.sha256(b"rubbish").hexdigest()
    artifact = Artifact("wheel", "w", "1", "https://h.example.invalid/w-1-py3-none-any.whl", digest, 7)
    store.path(artifact.url).parent.mkdir(parents=True)
    store.path(artifact.url).write_bytes(b"rubbish")
    from bundler.workspace import EnvironmentLock

    with pytest.raises(DamagedError, match="w-1-py3-none-any"):
        environment_entry(EnvironmentLock("e", (), "linux-64", (artifact,)), store)
