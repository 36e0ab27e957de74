"""A home of its own for each test: no proxy, credentials or pixi configuration of the user's."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
from typing import TYPE_CHECKING

import pytest

from bundler.collect.client import Credentials
from bundler.collect.download import Wanted, receive
from bundler.collect.network import Network, Origin
from bundler.collect.transfer import Patience
from tests.support.fileserver import FileServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

QUICK = Patience(attempts=4, first_wait=0.01, longest_wait=0.05)


class Downloader:
    """The room's way to a file, from plain addresses."""

    def __init__(self, credentials: Credentials | None = None, patience: Patience = QUICK) -> None:
        self.network = Network(credentials or Credentials())
        self.patience = patience

    def download(
        self,
        wanted: Wanted,
        advance: Callable[[int], None] | None = None,
        headers: dict[str, str] | None = None,
    ) -> str:
        origins = [Origin(self.network, url, headers or {}) for url in wanted.urls]
        return receive(wanted, origins, advance, stop=self.network.stop, patience=self.patience)


def content(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        upper = name.upper()
        if upper.endswith(("_PROXY", "_CA_BUNDLE")) or upper.startswith(
            ("PIXI_", "RATTLER_", "XDG_", "SSL_CERT")
        ):
            monkeypatch.delenv(name)
    monkeypatch.delenv("NETRC", raising=False)
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    (tmp_path / "www").mkdir()
    with FileServer(tmp_path / "www") as running:
        yield running


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of 1 MiB, or skip where none can be mounted."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)
