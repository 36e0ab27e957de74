"""Headers of safetensors files: what the format's own rules refuse, with any bytes at all."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.errors import DamagedError
from bundler.safetensors import read_file_header, read_header

if TYPE_CHECKING:
    from pathlib import Path


def shard(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def read(content: bytes) -> Any:
    return read_header(
        lambda offset, length: content[offset : offset + length], len(content), "x.safetensors"
    )


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


GOOD = {
    "__metadata__": {"format": "pt"},
    "b": entry("F32", [], 12, 16),
    "a": entry("BF16", [2, 3], 0, 12),
    "empty": entry("BF16", [0, 5], 16, 16),
    "four": entry("F4", [3, 2], 16, 19),
}


def test_a_good_file_is_read_in_the_order_of_its_data() -> None:
    header = read(shard(GOOD, bytes(19)))
    assert [(tensor.name, tensor.elements, tensor.size) for tensor in header.tensors] == [
        ("a", 6, 12),
        ("b", 1, 4),
        ("empty", 0, 0),
        ("four", 6, 3),
    ]


@pytest.mark.parametrize(
    ("content", "finding"),
    [
        (b"", "is 0 bytes long"),
        (b"1234567", "is 7 bytes long"),
        (shard(GOOD, bytes(19), 1 << 63), "its header claims 9223372036854775808 bytes"),
        (shard(GOOD, bytes(19), 100_000_001), "its header claims 100000001 bytes"),
        (shard(b"{", b""), "not a JSON object"),
        (shard(b"[1]", b""), "not a JSON object"),
        (shard(b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}"), "JSON object|describes"),
        (shard(b"\xff\xfe"), "not a JSON object"),
        (shard({"a": 1}), "describes 'a' wrongly"),
        (shard({"a": {"dtype": "F32"}}), "describes 'a' wrongly"),
        (shard({"a": entry("F32", [1.5], 0, 4)}), "describes 'a' wrongly"),  # type: ignore[list-item]
        (shard({"a": entry("F32", [-1], 0, 4)}, bytes(4)), "impossible shape"),
        (shard({"a": entry("F32", [1], -4, 0)}), "impossible data_offsets"),
        (shard({"a": entry("F32", [1], 4, 0)}), "impossible data_offsets"),
        (shard({"a": entry("F33", [1], 0, 4)}, bytes(4)), "unknown dtype 'F33'"),
        (shard({"a": entry("F32", [2, 3], 0, 20)}, bytes(20)), "2×3 of F32 is not the 20 bytes"),
        (shard({"a": entry("F32", [1], 4, 8)}, bytes(8)), "a gap behind"),
        (
            shard({"a": entry("F32", [2], 0, 8), "b": entry("F32", [1], 4, 8)}, bytes(8)),
            "inside the one before",
        ),
        (shard(GOOD, bytes(18)), "truncated: the header describes"),
        (shard(GOOD, bytes(20)), "too long: the header describes"),
        (shard({"a\x1b[31m" + "x" * 500: entry("F33", [1], 0, 4)}, bytes(4)), "'a?"),
    ],
)
def test_what_contradicts_itself_is_refused_with_its_cause(content: bytes, finding: str) -> None:
    with pytest.raises(DamagedError) as caught:
        read(content)
    assert any(part in caught.value.findings[0] for part in finding.split("|"))
    assert all(len(line) < 400 for line in caught.value.findings)
    assert "x.safetensors" in str(caught.value)


@given(st.binary(max_size=200), st.integers(0, (1 << 64) - 1))
def test_any_bytes_give_a_header_or_a_refusal(content: bytes, length: int) -> None:
    for text in (content, struct.pack("<Q", length) + content, shard(content)):
        try:
            read(text)
        except DamagedError:
            continue


@given(st.integers(0, len(json.dumps(GOOD).encode()) + 8 + 18))
def test_every_truncation_is_seen(length: int) -> None:
    with pytest.raises(DamagedError):
        read(shard(GOOD, bytes(19))[:length])


def test_a_file_on_the_disk_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(shard(GOOD, bytes(19)))
    assert read_file_header(path).file_size == path.stat().st_size
