"""What a library says of itself, read of real ones."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from bundler.common.elf import dynamic_symbols, needed_libraries

EXTENSION = Path(msgspec._core.__file__)


def test_a_real_extension_module() -> None:
    assert "libc.so.6" in needed_libraries(EXTENSION)
    found = dict(dynamic_symbols(EXTENSION, re.compile(rb"Py(?:Dict|Init)_\w+")))
    assert found[b"PyInit__core"] and not found[b"PyDict_New"]
    assert dynamic_symbols(EXTENSION, re.compile(rb"cu[A-Z]\w*")) == []


@pytest.mark.parametrize("length", [0, 4, 70, 5000])
def test_a_file_that_is_none_or_cut_short_says_nothing(tmp_path: Path, length: int) -> None:
    path = tmp_path / "x.so"
    path.write_bytes(EXTENSION.read_bytes()[:length])
    assert needed_libraries(path) == [] and dynamic_symbols(path, re.compile(rb"Py\w+")) == []
    path.write_text("INPUT(libother.so)")
    assert needed_libraries(path) == []
