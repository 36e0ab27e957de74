"""A lock that one process has at a time, and the secrets of addresses."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from bundler.common.durable import locked
from bundler.common.secrets import masked

if TYPE_CHECKING:
    from pathlib import Path


class BusyError(Exception):
    """Another one has it."""


def refuse() -> None:
    raise BusyError


def test_a_lock_is_had_once_and_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    script = (
        "import sys; from pathlib import Path; from bundler.common.durable import locked\n"
        "with locked(Path(sys.argv[1]), sys.exit): print('held', flush=True); sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout and holder.stdout.readline() == b"held\n"
    with pytest.raises(BusyError), locked(path, refuse):
        pass
    holder.kill()
    holder.communicate()
    with locked(path, refuse), pytest.raises(BusyError), locked(path, refuse):
        pass
    with locked(path, refuse):
        pass


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at https://u:p@ss@host/x twice", "at https://***@host/x twice"),
        ("https://host/t/tk-1/conda-forge/a", "https://host/t/***/conda-forge/a"),
        ("https://host/a@b/t/c", "https://host/a@b/t/c"),
        ("a@b.c and /t/x", "a@b.c and /t/x"),
    ],
)
def test_secrets_of_addresses_are_masked(text: str, shown: str) -> None:
    assert masked(text) == shown
