"""In which order a model's files reach the disk: a shard with its own name is a whole one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bundler.collect.models.source import carry
from bundler.collect.models.specs import open_model
from tests.collect.models.conftest import MODEL
from tests.support.disk import WatchedDisk

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.support.hubs import Repo


def test_shards_are_synced_before_their_names_and_their_folder_after(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no digest is remembered of a file whose name may be lost yet."""
    weights = tmp_path / "weights"
    weights.mkdir()
    with monkeypatch.context() as watching:
        disk = WatchedDisk(weights, watching)
        carried = carry(open_model(f"ms:{MODEL}", workspace=tmp_path), weights, jobs=3)
    disk.check_names()
    assert {member.path.removeprefix("weights/") for member in carried.members} <= set(disk.names())
    assert "append" in {event.kind for event in disk.events}
