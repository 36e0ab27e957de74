"""The parts of the real run that need no five gigabytes."""

from __future__ import annotations

import base64
import ctypes
import hashlib
import shutil
import struct
import subprocess
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.real.closure import (
    PYTORCH,
    REPOSITORY,
    ClosureError,
    check_names,
    locked_wheels,
    requirements,
)
from tests.real.fatbin import PTX, codes, keep_architecture
from tests.real.hollow import exported, hollow
from tests.real.run import Done, Step
from tests.real.spoken import launches, readers
from tests.real.wheelcut import cut_wheel

if TYPE_CHECKING:
    from pathlib import Path

needs_gcc = pytest.mark.skipif(not (shutil.which("gcc") and shutil.which("nm")), reason="no gcc or binutils")


def entry(kind: int, architecture: int, payload: bytes) -> bytes:
    head = struct.pack("<HHIQ", kind, 0x101, 64, len(payload)) + bytes(12) + struct.pack("<I", architecture)
    return head.ljust(64, b"\0") + payload


def container(*entries: bytes) -> bytes:
    body = b"".join(entries)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def elf(section: str, content: bytes) -> bytearray:
    """Return an ELF file with one section and the table of names, as the linker lays them."""
    names = b"\0" + section.encode() + b"\0.shstrtab\0"
    place, text = 64, 64 + len(content)
    table = text + len(names)
    head = b"\x7fELF\x02\x01\x01".ljust(40, b"\0") + struct.pack("<Q", table)
    head = head.ljust(58, b"\0") + struct.pack("<HHH", 64, 3, 2)
    rows = [(0,) * 10, (1, 1, 0, 0, place, len(content), 0, 0, 8, 0)]
    rows += [(len(section) + 2, 3, 0, 0, text, len(names), 0, 0, 1, 0)]
    return bytearray(head + content + names + b"".join(struct.pack("<IIQQQQIIQQ", *row) for row in rows))


def test_only_one_architectures_code_stays() -> None:
    first = container(entry(2, 80, b"a" * 24), entry(2, 90, b"b" * 40), entry(PTX, 90, b"p" * 16))
    second = container(entry(2, 90, b"c" * 8), entry(2, 100, b"d" * 8))
    library = elf(".nv_fatbin", first.ljust(len(first) + 24, b"\0") + second)
    before = bytes(library)
    assert keep_architecture(library, 90) == 24 + 16 + 8
    assert b"b" * 40 in library and b"c" * 8 in library
    assert b"aa" not in library and b"pp" not in library and b"dd" not in library
    assert len(library) == len(before)
    assert [one.architecture for one in codes(library)] == [80, 90, 90, 90, 100]


def test_other_sections_stay() -> None:
    library = elf(".text", container(entry(2, 80, b"a" * 24)))
    before = bytes(library)
    assert keep_architecture(library, 90) == 0 and library == before


def test_no_library() -> None:
    with pytest.raises(ValueError, match="no 64-bit ELF"):
        keep_architecture(bytearray(b"#!/bin/sh\n"), 90)


def test_a_cut_wheel_is_whole(tmp_path: Path) -> None:
    source, target = tmp_path / "in.whl", tmp_path / "out.whl"
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr("one/big.so", b"0123456789")
        archive.writestr("one/__init__.py", b"")
        archive.writestr("one/tests/test_one.py", b"")
        archive.writestr("one-1.dist-info/RECORD", "one/big.so,sha256=x,10\n")
    cut_wheel(source, target, ("*/tests/*",), lambda name, data: data[:3] if name.endswith(".so") else data)
    with zipfile.ZipFile(target) as archive:
        assert archive.namelist() == ["one/big.so", "one/__init__.py", "one-1.dist-info/RECORD"]
        assert archive.read("one/big.so") == b"012"
        digest = base64.urlsafe_b64encode(hashlib.sha256(b"012").digest()).rstrip(b"=").decode()
        record = archive.read("one-1.dist-info/RECORD").decode().splitlines()
        assert record[0] == f"one/big.so,sha256={digest},3" and record[-1] == "one-1.dist-info/RECORD,,"
        assert all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())


@needs_gcc
def test_a_hollow_library_has_the_symbols(tmp_path: Path) -> None:
    (tmp_path / "real.c").write_text("int answer(void) { return 42; }\nint other(void) { return 43; }\n")
    (tmp_path / "versions").write_text("REAL_1 { global: answer; };\n")
    words = ["gcc", "-shared", f"-Wl,--version-script={tmp_path}/versions", "-o", "libreal.so", "real.c"]
    subprocess.run(words, cwd=tmp_path, check=True)
    (tmp_path / "hollow.so").write_bytes(hollow((tmp_path / "libreal.so").read_bytes(), "libreal.so"))
    assert exported(tmp_path / "hollow.so") == exported(tmp_path / "libreal.so")
    assert ctypes.CDLL(str(tmp_path / "hollow.so")).answer() == 1


def test_the_closure_is_the_locks() -> None:
    locked = locked_wheels(REPOSITORY / "pixi.lock")
    assert len(locked) == 162 and set(PYTORCH) < set(locked)
    assert locked["torch"].version == "2.9.1+cu128" and locked["torch"].public_version == "2.9.1"
    asked, overrides = requirements(REPOSITORY / "pixi.toml")
    assert {"sglang==0.5.7", "torch==2.9.1", "modelscope"} <= set(asked)
    assert overrides == ["nvidia-cudnn-cu12==9.16.0.29"]


def test_other_packages_are_refused() -> None:
    check_names({"torch", "ninja"}, {"torch"})
    with pytest.raises(ClosureError, match=r"sglang.*numpy"):
        check_names({"torch", "numpy"}, {"torch", "sglang"})


def test_a_variable_is_found_as_a_whole_word(tmp_path: Path) -> None:
    site = tmp_path / "lib" / "python3.12" / "site-packages"
    for name, text in {
        "triton/knobs.py": "TRITON_CACHE_DIRECTORY",
        "sglang/srt/environ.py": 'EnvInt("SGLANG_WARMUP_TIMEOUT")',
        "sglang/other.py": "SGLANG_DG_CACHE_DIR",
    }.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)
    found = readers(tmp_path)
    assert found["SGLANG_WARMUP_TIMEOUT"] == ["sglang/srt/environ.py"]
    assert found["TRITON_CACHE_DIR"] == found["SGLANG_DG_CACHE_DIR"] == []


def test_every_manifest_is_launched(tmp_path: Path) -> None:
    backends = {word for one in launches(tmp_path) for word in one.argv if word in ("fa3", "triton")}
    models = {one.served_name for one in launches(tmp_path)}
    assert backends == {"fa3", "triton"}
    assert models == {"glm-4.7", "glm-4.7-fp8", "qwen2-vl-7b", "tiny-glm4-moe"}
    assert {one.nnodes for one in launches(tmp_path)} == {1, 2}


def test_what_is_done_is_remembered(tmp_path: Path) -> None:
    from tests.real.run import Real

    done, real = Done(tmp_path / "steps.json"), Real(tmp_path)
    for name in ("one", "two", "three"):
        done.add(Step(name, lambda _: None), real)
    assert set(Done(tmp_path / "steps.json").rows) == {"one", "two", "three"}
    done.forget(["one", "two", "three"], "two")
    assert set(Done(tmp_path / "steps.json").rows) == {"one"}
