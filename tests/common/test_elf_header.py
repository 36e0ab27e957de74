"""What can be loaded as a library, by its header: the real interpreter, and files that are none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bundler.common.elf import library_problem


def test_real_files() -> None:
    assert library_problem(Path(sys.executable).resolve()) is None
    assert library_problem(Path(sys.executable).resolve(), "riscv64") == "is for x86_64, not for riscv64"
    assert library_problem(Path("/dev/null")) == "is empty"
    assert library_problem(Path("/")) == "can't be read: Is a directory"


@pytest.mark.parametrize(
    ("head", "problem"),
    [
        (b"INPUT(libcuda.so.1)" + bytes(64), "is no shared library"),
        (b"\x7fELF\x02\x01\x01", "is no shared library"),
        (b"\x7fELF\x01\x01\x01" + bytes(11) + b"\x03" + bytes(64), "is for 32-bit x86, not for x86_64"),
        (b"\x7fELF\x02\x01\x01" + bytes(11) + b"\xb7" + bytes(64), "is for aarch64, not for x86_64"),
        (b"\x7fELF\x02\x01\x01" + bytes(11) + b"\x3e" + bytes(64), None),
    ],
)
def test_headers(tmp_path: Path, head: bytes, problem: str | None) -> None:
    (tmp_path / "library.so").write_bytes(head)
    assert library_problem(tmp_path / "library.so", "x86_64") == problem
