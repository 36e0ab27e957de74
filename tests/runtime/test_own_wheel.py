"""bundler's own wheel: whole, the same bytes however bundler is there, and nothing that was changed."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import subprocess
import sys
import zipfile
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

import bundler
from bundler.runtime.own_wheel import own_wheel


def digest(data: bytes) -> str:
    """Return a hash as RECORD spells it."""
    return "sha256=" + urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def test_bundlers_own_wheel_holds_what_it_needs_and_is_reproducible(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = own_wheel(tmp_path / "a"), own_wheel(tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    names = zipfile.ZipFile(first).namelist()
    assert "bundler/runtime/data/install.sh" in names
    assert "bundler/_manifests/GLM-4.7.toml" in names
    assert {"bundler/_workspace/pixi.toml", "bundler/_workspace/pixi.lock"} < set(names)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert any(name.endswith(".dist-info/entry_points.txt") for name in names)
    assert not [name for name in names if name.endswith(".pyc") or "direct_url" in name]
    text = zipfile.ZipFile(first).read(next(name for name in names if name.endswith("/METADATA"))).decode()
    assert "\nName: bundler\n" in text


def test_a_checkout_travels_without_being_installed(tmp_path: Path) -> None:
    checkout = Path(bundler.__file__).parents[1]
    program = "from pathlib import Path; from bundler.runtime.own_wheel import own_wheel\nown_wheel(Path())"
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


PROGRAM = """
import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])
from bundler.runtime import own_wheel; assert own_wheel.__file__.startswith(sys.argv[1])
own_wheel.own_wheel(Path(sys.argv[2]))
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return where bundler's own wheel is installed, by itself."""
    (tmp_path / "first").mkdir()
    uv = Path(sys.executable).parent / "uv"
    words = ["pip", "install", "--quiet", "--offline", "--no-deps", "--prefix", tmp_path / "site"]
    subprocess.run([uv, *words, own_wheel(tmp_path / "first")], check=True)
    (found,) = (tmp_path / "site").glob("lib/python3*/site-packages")
    return found


def again(site: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Make the wheel of the installed bundler."""
    folder.mkdir()
    words = [sys.executable, "-c", PROGRAM, site, folder]
    return subprocess.run(words, capture_output=True, text=True, cwd=folder, check=False)


def test_an_installed_bundler_travels_as_its_checkout_does(site: Path, tmp_path: Path) -> None:
    assert again(site, tmp_path / "second").returncode == 0
    (first,), (second,) = (tmp_path / "first").iterdir(), (tmp_path / "second").iterdir()
    assert second.read_bytes() == first.read_bytes()


@pytest.mark.parametrize("name", ["bundler/errors.py", "bundler/_manifests/GLM-4.7.toml"])
@pytest.mark.parametrize("gone", [False, True])
def test_a_changed_or_missing_file_is_refused(site: Path, tmp_path: Path, name: str, gone: bool) -> None:
    path = site / name
    path.unlink()
    if not gone:
        path.write_bytes((Path(bundler.__file__).parent / "errors.py").read_bytes() + b"# more")
    done = again(site, tmp_path / "second")
    assert done.returncode != 0
    if name != "bundler/errors.py" or not gone:
        assert "a file of bundler is missing, or was changed after its install" in done.stderr


def test_every_file_of_the_wheel_is_in_its_record(tmp_path: Path) -> None:
    wheel = zipfile.ZipFile(own_wheel(tmp_path))
    record = next(one for one in wheel.namelist() if one.endswith(".dist-info/RECORD"))
    rows = {row[0]: row[1] for row in csv.reader(io.StringIO(wheel.read(record).decode()))}
    assert set(rows) == set(wheel.namelist())
    assert all(digest(wheel.read(path)) == stated for path, stated in rows.items() if path != record)
