"""Fetch, pack, unpack and install are killed and let down by their disk, go on, and lose nothing."""

from __future__ import annotations

import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from bundler.archive.writer import write_bundle
from bundler.manifest import Environment
from tests.archive.make import content, make_tree, recipe_of
from tests.faults.nursery import Nursery
from tests.faults.rounds import Bench, Tally
from tests.faults.subjects import fetch_subject, install_subject, pack_subject, unpack_subject
from tests.install.test_install_command import keep
from tests.support.fileserver import FileServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import MadeWorkspace
    from tests.faults.subjects import Subject

WORKERS = 2
SHARES = {"pack": 45, "unpack": 42, "fetch": 30, "install": 3}
"""Of 120 rounds; an install takes seconds."""


@pytest.fixture
def subjects(tmp_path: Path, filled_workspace: MadeWorkspace) -> list[Callable[[Path], Subject]]:
    """Return how each subject is made in a folder of its own; all read the same sources."""
    tree = make_tree(tmp_path / "tree", (0, 1, 513, 70_000, 150_000, 90_000, 9))
    write_bundle(recipe_of(tree), [tmp_path / "made"])
    keep(filled_workspace.root, (Environment(name="extra"),))
    www = tmp_path / "www"
    www.mkdir()
    for number in range(6):
        (www / f"p{number}.whl").write_bytes(content(9_000 + 17_919 * number, number))
    server = FileServer(www)
    server.__enter__()
    return [
        lambda folder: pack_subject(folder / "pack", tree),
        lambda folder: unpack_subject(folder / "unpack", tmp_path / "made"),
        lambda folder: fetch_subject(folder / "fetch", www, server.url),
        lambda folder: install_subject(folder / "install", filled_workspace.root),
    ]


@pytest.mark.timeout(0)
def test_nothing_is_lost(
    tmp_path: Path,
    subjects: list[Callable[[Path], Subject]],
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> None:
    rounds = request.config.getoption("--fault-rounds")
    seed = request.config.getoption("--fault-seed") or random.SystemRandom().randrange(10**6)
    chosen = request.config.getoption("--fault-only")
    print(f"seed {seed}")

    def work(worker: int) -> Tally:
        folder = tmp_path / f"worker-{worker}"
        folder.mkdir()
        nursery, tally = Nursery(), Tally()
        try:
            for make in subjects:
                subject = make(folder)
                share = round(rounds * SHARES[subject.name] / sum(SHARES.values()))
                if chosen and subject.name != chosen:
                    continue
                if chosen:
                    share = rounds
                bench = Bench(subject, nursery, folder / f"{subject.name}-notes")
                for number in range(worker, share, WORKERS):
                    tally.add(bench.round(number, seed))
                shutil.rmtree(subject.work)
        finally:
            nursery.close()
        return tally

    whole = Tally()
    with ThreadPoolExecutor(WORKERS) as pool:
        for tally in pool.map(work, range(WORKERS)):
            whole.add(tally)
    record_property("faults", whole.text(seed))
    assert not whole.found, "\n\n".join([whole.text(seed), *whole.found[:12]])
