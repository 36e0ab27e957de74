"""In which order an install reaches the disk: the receipt names an environment only when it is there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from click.testing import CliRunner

from bundler.cli.main import bundler_command
from bundler.install import compiled
from bundler.install.compiled import compile_modules
from bundler.install.native import MARK
from bundler.installation import RECEIPT
from tests.install.test_install_command import installation
from tests.support.disk import WatchedDisk

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pytest

    from bundler.common.progress import Reporter
    from bundler.installation import Installation

__all__ = ["installation"]


def test_the_receipt_is_synced_and_comes_last(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice: without the environment before the work begins, and with it when all else has its name."""

    def few(python: Path, folders: Sequence[Path], name: str, reporter: Reporter) -> None:
        # Each step that is watched looks at every file: a package's modules do for all.
        compile_modules(python, [folder / "site-packages" / "click" for folder in folders], name, reporter)

    monkeypatch.setattr(compiled, "compile_modules", few)
    with monkeypatch.context() as watching:
        disk = WatchedDisk(installation.root, watching)
        words = ["install", "--installer", "native", "-e", "extra", str(installation.root)]
        done = CliRunner().invoke(bundler_command, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    names = disk.names()
    assert names.count(RECEIPT) == 2
    assert names[0] == names[-1] == RECEIPT
    disk.check_names(besides={name for name in names if name != RECEIPT})
    written, finished = disk.events[disk.last(RECEIPT)], disk.events[disk.last(f".pixi/envs/extra/{MARK}")]
    assert (written.torn, written.unnamed) == ((), ()), "the receipt came before what it names was synced"
    assert not [path for path in finished.torn if path.startswith(".pixi/envs/extra/")]
    assert list((installation.root / ".pixi/envs/extra").rglob("click/__pycache__/*.pyc"))
    receipt = json.loads((installation.root / RECEIPT).read_bytes())
    assert [one["name"] for one in receipt["environments"]] == ["extra"]
