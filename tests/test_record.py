"""Files against their record: each way of differing by itself, on a real disk."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from bundler.manifest import Entry
from bundler.record import compare

if TYPE_CHECKING:
    from pathlib import Path

TEXT = b"as it was"
FILE = Entry("sub/file", "file", 0o644, len(TEXT), hashlib.sha256(TEXT).hexdigest(), 0)
ENTRIES = (Entry("sub", "dir", 0o755, 0, "", 0), FILE, Entry("link", "link", 0o777, 0, "", 0, target="sub"))
TIME = 1_700_000_000_000_000_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/file").write_bytes(TEXT)
    os.utime(tmp_path / "sub/file", ns=(TIME, TIME))
    (tmp_path / "link").symlink_to("sub")
    return tmp_path


def kinds(root: Path, *, deep: bool = False, follow: bool = False, timed: bool = True) -> dict[str, str]:
    times = {FILE.path: TIME} if timed else None
    return {one.entry.path: one.kind for one in compare(root, ENTRIES, times=times, deep=deep, follow=follow)}


def test_nothing_differs(root: Path) -> None:
    assert kinds(root) == kinds(root, deep=True) == {}


def test_a_missing_file(root: Path) -> None:
    (root / "sub/file").unlink()
    assert kinds(root) == {"sub/file": "missing"}


def test_a_file_for_a_folder(root: Path) -> None:
    """What lies below can't be reached then, which isn't the same as missing."""
    (root / "sub/file").unlink()
    (root / "sub").rmdir()
    (root / "sub").touch()
    assert kinds(root) == {"sub": "kind", "sub/file": "unreadable"}


def test_another_size_comes_before_another_time(root: Path) -> None:
    (root / "sub/file").write_bytes(TEXT + b"!")
    assert kinds(root) == kinds(root, timed=False) == kinds(root, deep=True) == {"sub/file": "size"}


def test_another_time(root: Path) -> None:
    os.utime(root / "sub/file", ns=(TIME, TIME + 1))
    assert kinds(root) == {"sub/file": "time"}
    assert kinds(root, timed=False) == {}


def test_other_content_is_found_by_reading_alone(root: Path) -> None:
    (root / "sub/file").write_bytes(TEXT[::-1])
    os.utime(root / "sub/file", ns=(TIME, TIME))
    assert kinds(root) == {}
    assert kinds(root, deep=True) == {"sub/file": "content"}


def test_another_link(root: Path) -> None:
    (root / "link").unlink()
    (root / "link").symlink_to("elsewhere")
    assert kinds(root) == {"link": "link"}


def test_a_link_to_the_file_is_as_good_where_it_is_followed(root: Path) -> None:
    (root / "sub/file").rename(root / "moved")
    (root / "sub/file").symlink_to("../moved")
    assert kinds(root) == {"sub/file": "kind"}
    assert kinds(root, deep=True, follow=True) == {}
