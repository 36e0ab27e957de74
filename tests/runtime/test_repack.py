"""Wheels made again from what is installed."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import subprocess
import sys
import zipfile
from base64 import urlsafe_b64encode
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path

import pytest

import bundler
from bundler.errors import DamagedError, InputError
from bundler.runtime.repack import own_wheel, repack, requirements


def digest(data: bytes) -> str:
    """Return a hash as RECORD spells it."""
    return "sha256=" + urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def installed(site: Path, files: dict[str, bytes], **more: str) -> Distribution:
    """Lay out a distribution ``small`` as pip would have."""
    info = site / "small-1.0.dist-info"
    stated = {
        "METADATA": "Metadata-Version: 2.1\nName: small\nVersion: 1.0\n",
        "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py2-none-any\nTag: py3-none-any\n",
        "INSTALLER": "pip\n",
        **more,
    }
    everything = files | {f"{info.name}/{name}": text.encode() for name, text in stated.items()}
    rows = []
    for name, data in everything.items():
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        rows.append(f"{name},{digest(data)},{len(data)}")
    (info / "RECORD").write_text("\n".join([*rows, f"{info.name}/RECORD,,"]) + "\n")
    return PathDistribution(info)


def test_bundlers_own_wheel_holds_what_it_needs_and_is_reproducible(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = own_wheel(tmp_path / "a"), own_wheel(tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    names = zipfile.ZipFile(first).namelist()
    assert "bundler/runtime/data/install.sh" in names
    assert "bundler/_manifests/GLM-4.7.toml" in names
    assert any(name.endswith(".dist-info/entry_points.txt") for name in names)
    assert not [name for name in names if name.endswith(".pyc") or "direct_url" in name]
    text = zipfile.ZipFile(first).read(next(name for name in names if name.endswith("/METADATA"))).decode()
    assert "\nName: bundler\n" in text


def test_a_checkout_travels_without_being_installed(tmp_path: Path) -> None:
    checkout = Path(bundler.__file__).parents[1]
    program = "from pathlib import Path; from bundler.runtime import repack\nrepack.own_wheel(Path())"
    hidden = f"import importlib.metadata as m; m.distribution = None\n{program}"
    done = subprocess.run(
        [sys.executable, "-c", hidden],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(checkout)},
        check=False,
    )
    assert done.returncode == 0
    (tmp_path / "here").mkdir()
    (made,) = tmp_path.glob("*.whl")
    assert made.read_bytes() == own_wheel(tmp_path / "here").read_bytes()


def test_an_installed_bundler_travels_as_its_checkout_does(tmp_path: Path) -> None:
    for name in ("first", "second", "site"):
        (tmp_path / name).mkdir()
    wheel = own_wheel(tmp_path / "first")
    command = [
        "uv",
        "pip",
        "install",
        "--quiet",
        "--offline",
        "--no-deps",
        "--prefix",
        tmp_path / "site",
        wheel,
    ]
    subprocess.run([Path(sys.executable).parent / command[0], *command[1:]], check=True)
    program = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from bundler.runtime import repack; assert repack.__file__.startswith(sys.argv[1])\n"
        "repack.own_wheel(Path(sys.argv[2]))"
    )
    (site,) = (tmp_path / "site").glob("lib/python3*/site-packages")
    words = [sys.executable, "-c", program, site, tmp_path / "second"]
    subprocess.run(words, check=True, cwd=tmp_path)
    (again,) = (tmp_path / "second").glob("*.whl")
    assert again.read_bytes() == wheel.read_bytes()


@pytest.mark.parametrize("name", ["click", "msgspec", "uv"])
def test_every_file_of_a_wheel_is_in_its_record(tmp_path: Path, name: str) -> None:
    wheel = zipfile.ZipFile(repack(distribution(name), tmp_path))
    record = next(one for one in wheel.namelist() if one.endswith(".dist-info/RECORD"))
    rows = {row[0]: row[1] for row in csv.reader(io.StringIO(wheel.read(record).decode()))}
    assert set(rows) == set(wheel.namelist())
    assert all(digest(wheel.read(path)) == stated for path, stated in rows.items() if path != record)


def test_a_binary_script_keeps_its_place_and_its_mode(tmp_path: Path) -> None:
    path = repack(distribution("uv"), tmp_path)
    found = [one for one in zipfile.ZipFile(path).infolist() if one.filename.endswith(".data/scripts/uv")]
    assert len(found) == 1
    assert found[0].external_attr >> 16 == 0o100755


def test_what_the_installer_made_is_left_out(tmp_path: Path) -> None:
    files = {
        "small.py": b"x = 1\n",
        "__pycache__/small.cpython-311.pyc": b"compiled",
        "../../../bin/small": b"#!/somewhere/bin/python\n",
        "../../../bin/other": b"#!/bin/sh\n",
        "../../../share/small/data.txt": b"data",
    }
    points = "[console_scripts]\nsmall = small:main\n"
    site = tmp_path / "lib/python3/site-packages"
    wheel = repack(installed(site, files, **{"entry_points.txt": points, "REQUESTED": ""}), tmp_path)
    assert wheel.name == "small-1.0-py2.py3-none-any.whl"
    assert sorted(zipfile.ZipFile(wheel).namelist()) == [
        "small-1.0.data/data/share/small/data.txt",
        "small-1.0.data/scripts/other",
        "small-1.0.dist-info/METADATA",
        "small-1.0.dist-info/RECORD",
        "small-1.0.dist-info/WHEEL",
        "small-1.0.dist-info/entry_points.txt",
        "small.py",
    ]


def test_a_changed_or_missing_file_is_refused(tmp_path: Path) -> None:
    site = tmp_path / "site"
    small = installed(site, {"small.py": b"x = 1\n"})
    (site / "small.py").write_bytes(b"x = 2\n")
    with pytest.raises(DamagedError, match=r"small 1\.0 was changed"):
        repack(small, tmp_path)
    (site / "small.py").unlink()
    with pytest.raises(DamagedError, match=r"small 1\.0 is missing"):
        repack(small, tmp_path)


def test_an_editable_install_is_refused(tmp_path: Path) -> None:
    url = '{"url": "file:///x", "dir_info": {"editable": true}}'
    small = installed(tmp_path / "site", {"small.py": b""}, **{"direct_url.json": url})
    with pytest.raises(InputError, match="editable"):
        repack(small, tmp_path)


def test_only_what_the_air_gapped_host_needs_travels() -> None:
    names = {one.name.lower() for one in requirements()}
    assert {"click", "msgspec", "py-rattler", "uv", "zstandard"} <= names
    assert not {"modelscope", "huggingface_hub", "httpx2", "conda-pack", "pytest", "bundler"} & names
