"""The archive of an environment: portable, normalised, and refused where it couldn't be moved."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from bundler.common.progress import SilentMeter
from bundler.errors import InstallError
from bundler.runtime.relocatable import conda_pack, settle_scripts, write_archive

if TYPE_CHECKING:
    from pathlib import Path


def environment(folder: Path) -> Path:
    """Lay out an environment of one conda package and some files that pip brought."""
    prefix = folder / "envs" / "one"
    files = {
        "share/managed.txt": f"installed in {prefix}\n",
        "bin/tool": f"#!{prefix}/bin/python3 -s\nprint(1)\n",
        "bin/detour": f"#!/bin/sh\n'''exec' \"{prefix}/bin/python3\" \"$0\" \"$@\" #'''\nprint(2)\n",
        "bin/python3": "\0binary",
        "lib/unmanaged.txt": f"also in {prefix}\n",
        "lib/module.pyc": "\0compiled",
    }
    for name, text in files.items():
        path = prefix / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o700 if name.startswith("bin/") else 0o600)
    (prefix / "lib/link").symlink_to("unmanaged.txt")
    (prefix / "lib/hard.txt").hardlink_to(prefix / "lib/unmanaged.txt")
    (prefix / "var/empty").mkdir(parents=True)
    record = {
        "name": "managed",
        "version": "1",
        "url": "https://host/managed-1-0.conda",
        "link": {"source": ""},
        "files": ["share/managed.txt"],
    }
    (prefix / "conda-meta").mkdir()
    (prefix / "conda-meta/managed-1-0.json").write_text(json.dumps(record))
    return prefix


def packed(prefix: Path, folder: Path, **added: bytes) -> Path:
    """Pack an environment the way the runtime is."""
    folder.mkdir()
    settle_scripts(prefix)
    conda_pack(prefix, folder / "packed.tar", folder)
    names = {f"bin/{name}": data for name, data in added.items()}
    write_archive(folder / "packed.tar", prefix, folder / "out.tar.gz", added=names, meter=SilentMeter())
    return folder / "out.tar.gz"


def test_two_places_give_the_same_bytes(tmp_path: Path) -> None:
    first = packed(environment(tmp_path / "one"), tmp_path / "x")
    deep = tmp_path / "a place with a space" / ("and a long name " * 8)
    second = packed(environment(deep), tmp_path / "y")
    assert first.read_bytes() == second.read_bytes()


def test_entries_are_sorted_and_say_nothing_of_their_maker(tmp_path: Path) -> None:
    with tarfile.open(packed(environment(tmp_path), tmp_path / "x", pixi=b"\x7fELF")) as archive:
        members = archive.getmembers()
    assert [one.name for one in members] == sorted(one.name for one in members)
    assert {(one.mtime, one.uid, one.gid, one.uname, one.gname) for one in members} == {(0, 0, 0, "", "")}
    modes = {one.name: one.mode for one in members}
    assert modes["bin/tool"] == modes["bin/pixi"] == 0o755
    assert modes["lib/unmanaged.txt"] == modes["lib/hard.txt"] == 0o644
    kinds = {one.name: one.type for one in members}
    assert kinds["lib/link"] == tarfile.SYMTYPE
    assert kinds["lib/hard.txt"] == tarfile.REGTYPE
    assert kinds["var/empty"] == tarfile.DIRTYPE
    assert "lib/module.pyc" not in modes
    assert not [name for name in modes if name.startswith("conda-meta")]


def test_conda_unpack_puts_the_new_place_in(tmp_path: Path) -> None:
    prefix = environment(tmp_path)
    archive = packed(prefix, tmp_path / "x")
    target = tmp_path / "moved to here"
    target.mkdir()
    subprocess.run(["tar", "xzf", archive, "-C", target], check=True)
    assert os.fsencode(prefix) not in b"".join(one.read_bytes() for one in target.rglob("*") if one.is_file())
    subprocess.run(
        ["python3", target / "bin/conda-unpack"], check=True, cwd="/", env={"PATH": os.environ["PATH"]}
    )
    assert (target / "share/managed.txt").read_text() == f"installed in {target}\n"
    assert (target / "lib/unmanaged.txt").read_text() == f"also in {target}\n"
    assert (target / "bin/tool").read_text() == "#!/usr/bin/env python3\nprint(1)\n"
    assert (target / "bin/detour").read_text() == "#!/usr/bin/env python3\nprint(2)\n"


def test_a_binary_that_holds_its_place_is_refused(tmp_path: Path) -> None:
    prefix = environment(tmp_path)
    (prefix / "lib/bad.so").write_bytes(b"\x7fELF\xff\0" + os.fsencode(prefix) + b"\0")
    with pytest.raises(InstallError, match=r"lib/bad\.so holds the path"):
        packed(prefix, tmp_path / "x")


def test_console_scripts_go_with_their_lines_in_record(tmp_path: Path) -> None:
    prefix = environment(tmp_path)
    info = prefix / "lib/python3.11/site-packages/small-1.dist-info"
    info.mkdir(parents=True)
    (info / "RECORD").write_text("small.py,,\n../../../bin/tool,sha256=x,1\n../../../bin/python3,,\n")
    settle_scripts(prefix)
    assert (info / "RECORD").read_text() == "small.py,,\n../../../bin/python3,,\n"
    assert not (prefix / "bin/tool").exists()
    assert (prefix / "bin/python3").exists()


def test_a_folder_that_is_no_environment_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "conda-meta").mkdir()
    (tmp_path / "conda-meta/broken.json").write_text("{")
    with pytest.raises(InstallError, match="conda-pack could not pack"):
        conda_pack(tmp_path, tmp_path / "out.tar", tmp_path)
