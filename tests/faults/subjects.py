"""What is disturbed: pack, unpack, fetch and install, each with what must be there at the end."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bundler.installation import RECEIPT, Installation
from tests.archive.make import snapshot

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Facts = dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Subject:
    """A command and its place."""

    name: str
    words: tuple[str, ...]
    work: Path
    """The folder that is watched; the command's own is made in it, or lies there from the beginning."""
    source: Path
    result: Callable[[], Facts]
    """Everything under its own name."""
    finished: Callable[[], bool]
    """Whether what is there says of itself that it is whole."""
    seed: Path | None = None
    """What lies in ``work`` before the first run."""
    checked_midway: bool = True
    """Whether a file with its own name is a whole one at any time, not only at the end."""

    def begin(self) -> None:
        """Lay out what a first run finds."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        if self.seed:
            shutil.copytree(self.seed, self.work, symlinks=True, dirs_exist_ok=True)


def pack_subject(work: Path, tree: Path) -> Subject:
    """Return a pack of a tree."""
    bundle = work / "bundle"

    def result() -> Facts:
        return {
            path.name: (f"{path.stat().st_mode & 0o777:o}", hashlib.sha256(path.read_bytes()).hexdigest())
            for path in (bundle.iterdir() if bundle.is_dir() else ())
            if path.name not in ("pack-log.json", ".pack-journal") and path.suffix != ".partial"
        }

    done = bundle / "SHA256SUMS"
    return Subject("pack", ("pack", str(tree), str(bundle)), work, tree, result, done.exists)


def unpack_subject(work: Path, bundle: Path) -> Subject:
    """Return an unpack of a bundle, without an install."""
    words = ("unpack", str(bundle), str(work / "out"), "--no-install", "--threads", "2")

    def result() -> Facts:
        return snapshot(work / "out")

    done = work / "out" / RECEIPT
    return Subject("unpack", words, work, bundle, result, done.exists)


def fetch_subject(work: Path, source: Path, address: str) -> Subject:
    """Return a fetch of a server's files."""
    mirror = work / "store/mirror"

    def result() -> Facts:
        found = snapshot(mirror)
        return {name: facts for name, facts in found.items() if facts[0] == "file" and ".partial" not in name}

    words = ("fetch", str(source), address, str(work / "store"))
    return Subject("fetch", words, work, source, result, lambda: False)


def _code_of(path: Path) -> str:
    """Return a compiled module's digest without its header, which holds the source's time."""
    return hashlib.sha256(path.read_bytes()[16:]).hexdigest()


def install_subject(work: Path, seed: Path) -> Subject:
    """Return an install of the environment ``extra`` of an unpacked installation."""
    words = ("install", "--installer", "native", "-e", "extra", str(work))
    prefix = work / ".pixi/envs/extra"

    def result() -> Facts:
        found = snapshot(prefix)
        for name, facts in found.items():
            if name.endswith(".pyc"):
                found[name] = (*facts[:-1], _code_of(prefix / name))
        return found

    def finished() -> bool:
        return any(one.name == "extra" for one in Installation(work).receipt.environments)

    store = work / ".pkg-cache"
    return Subject("install", words, work, store, result, finished, seed, checked_midway=False)
