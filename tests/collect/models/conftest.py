"""A played hub for each test, and the clients of both hubs pointed at it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bundler.collect.models import huggingface, remote
from bundler.collect.models.hub import HubModel
from tests.support.hubs import Hub, Repo, read_folder, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODEL = "Team/tiny-glm4-moe"
COMMIT = "a" * 40


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """Return a hub that both clients ask; no token is anywhere."""
    for played in serve(Hub()):
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", played.address)
        monkeypatch.setenv("HF_ENDPOINT", played.address)
        monkeypatch.setenv("MODELSCOPE_HOME", str(tmp_path / "modelscope"))
        monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))
        for name in ("MODELSCOPE_API_TOKEN", "MODELSCOPE_DOMAIN", "HF_TOKEN", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        yield played


@pytest.fixture
def files(tiny_model: Path) -> dict[str, bytes]:
    """Return the tiny model's files, with what a hub adds to them."""
    return {**read_folder(tiny_model), ".gitattributes": b"*.safetensors filter=lfs\n"}


@pytest.fixture
def repo(hub: Hub, files: dict[str, bytes]) -> Repo:
    """Return the tiny model's repository on the hub."""
    made = hub.repos[MODEL] = Repo()
    made.put(files, COMMIT)
    return made


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make waits between attempts short."""
    patience = replace(remote.HUB_PATIENCE, first_wait=0.01)
    monkeypatch.setattr(HubModel, "patience", patience)
    assert HubModel.__init__.__defaults__ is not None
    monkeypatch.setattr(HubModel.__init__, "__defaults__", (*HubModel.__init__.__defaults__[:-1], patience))
    monkeypatch.setattr(huggingface, "LISTING_PATIENCE", replace(remote.LISTING_PATIENCE, first_wait=0.01))
