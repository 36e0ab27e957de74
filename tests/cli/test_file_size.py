"""Disks whose file system takes no large files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from bundler.errors import PreflightError
from bundler.work import plan as planning
from tests.cli.conftest import run_bundler
from tests.cli.test_messages import said

LIMITED = ("sh", "-c", 'ulimit -f 8000 && exec "$@"', "sh")
"""Files of at most 4 MB, as FAT32's 4 GB: the kernel's answer is the same."""


def test_a_file_that_grows_too_large_names_the_way_out(tiny_model: Path, tmp_path: Path) -> None:
    words = ("pack", "--model", tiny_model, "-o", tmp_path)
    said(run_bundler(*words, cwd=tmp_path, prefix=LIMITED), 8, "no file as large", "--volume-size")
    assert run_bundler(*words, cwd=tmp_path).returncode == 0
    words = ("unpack", tmp_path / tiny_model.name, tmp_path / "to")
    said(run_bundler(*words, cwd=tmp_path, prefix=LIMITED), 9, "no file as large", "ext4")
    assert run_bundler(*words, cwd=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("size", "volume", "kind", "refused"),
    [
        (700 * 10**9, 8 * 2**30, "vfat", True),
        (700 * 10**9, 3900 * 2**20, "vfat", False),
        (10**9, 8 * 2**30, "vfat", False),
        (700 * 10**9, 8 * 2**30, "ext4", False),
    ],
)
def test_fat_is_seen_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, volume: int, kind: str, refused: bool
) -> None:
    monkeypatch.setattr(planning, "file_system", lambda folder: kind)

    class Planned:
        pass

    plan: Any = Planned()
    plan.size = size
    if not refused:
        planning.check_volume_size(plan, [tmp_path], volume)
        return
    with pytest.raises(PreflightError, match="FAT") as raised:
        planning.check_volume_size(plan, [tmp_path], volume)
    assert "3900MiB" in (raised.value.hint or "")


def test_the_file_system_is_the_one_that_the_folder_would_be_on(tmp_path: Path) -> None:
    device = tmp_path.stat().st_dev
    table = tmp_path / "mountinfo"
    table.write_text(
        "22 1 0:999 / /elsewhere rw - tmpfs none rw\n"
        f"23 1 {os.major(device)}:{os.minor(device)} / /mnt rw,relatime shared:1 - vfat /dev/sdb1 rw\n"
    )
    assert planning.file_system(tmp_path / "not" / "there", table) == "vfat"
    assert planning.file_system(Path("/proc")) == "proc"
    table.write_text("")
    assert planning.file_system(tmp_path, table) is None
