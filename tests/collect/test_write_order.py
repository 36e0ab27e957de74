"""In which order the store's files reach the disk: a file with its own name is a whole one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bundler.collect.fetch import fetch
from bundler.store import Store
from tests.collect.conftest import QUICK
from tests.collect.test_fetch import make
from tests.support.disk import WatchedDisk

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.support.fileserver import FileServer


def test_artifacts_are_synced_before_their_names_and_their_folder_after(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What bundler remembers of the store may be lost: files are then hashed again."""
    artifacts, store = make(server, 5), Store(tmp_path / "store")
    (tmp_path / "store").mkdir()
    with monkeypatch.context() as watching:
        disk = WatchedDisk(store.root, watching)
        fetch(artifacts, store, jobs=3, patience=QUICK)
    disk.check_names(besides=[store.memory.name])
    assert {store.relative(artifact.url) for artifact in artifacts} <= set(disk.names())
