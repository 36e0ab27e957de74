"""Modules are compiled when they are installed, by the interpreter that will import them."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from bundler.common.progress import SILENT
from bundler.errors import InstallError
from bundler.install.compiled import compile_modules

PYTHON = Path(sys.executable)


def compiled(module: Path) -> Path:
    return Path(importlib.util.cache_from_source(str(module)))


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return a folder of 120 modules, one of them none."""
    folder = tmp_path / "site" / "package"
    folder.mkdir(parents=True)
    for number in range(120):
        (folder / f"module{number}.py").write_text(f"value = {number}\n")
    (folder / "template.py").write_text("value = {{ value }}}\n")
    return folder


def test_all_that_can_be_is_compiled(package: Path) -> None:
    compile_modules(PYTHON, [package], "demo", SILENT)
    assert sorted(path.name.split(".")[0] for path in (package / "__pycache__").iterdir()) == sorted(
        f"module{number}" for number in range(120)
    )
    before = compiled(package / "module7.py").stat().st_mtime_ns
    (package / "module8.py").write_text("value = 'changed'\n")
    compile_modules(PYTHON, [package], "demo", SILENT)
    assert compiled(package / "module7.py").stat().st_mtime_ns == before
    said = subprocess.run(
        [PYTHON, "-B", "-c", "import package.module8 as m; print(m.value, m.__cached__)"],
        cwd=package.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.startswith("changed ")


def test_one_that_a_full_disk_cut_short_is_made_anew(package: Path) -> None:
    compile_modules(PYTHON, [package], "demo", SILENT)
    path = compiled(package / "module3.py")
    whole = path.read_bytes()
    path.write_bytes(whole[:20])
    compile_modules(PYTHON, [package], "demo", SILENT)
    assert path.read_bytes() == whole


def test_what_a_killed_run_was_writing_goes(package: Path) -> None:
    left = package / "__pycache__" / f"{compiled(package / 'module3.py').name}.139934567890123"
    left.parent.mkdir()
    left.write_bytes(b"half")
    compile_modules(PYTHON, [package], "demo", SILENT)
    assert not left.exists() and compiled(package / "module3.py").exists()


def test_damaged_modules_of_the_interpreter_itself_are_no_hindrance(tmp_path: Path) -> None:
    """As after a power cut: it couldn't start the script by them."""
    home = tmp_path / "home"
    subprocess.run([PYTHON, "-m", "venv", "--without-pip", home], check=True)
    (site,) = home.glob("lib/python*/site-packages")
    (site / "late.py").write_text("value = 1\n")
    (site / "late.pth").write_text("import late\n")
    compile_modules(home / "bin" / "python", [site], "demo", SILENT)
    path = compiled(site / "late.py")
    path.write_bytes(path.read_bytes()[:16] + bytes(40))
    broken = subprocess.run([home / "bin" / "python", "-c", ""], capture_output=True, text=True, check=False)
    assert "bad marshal data" in broken.stderr
    compile_modules(home / "bin" / "python", [site], "demo", SILENT)
    said = subprocess.run([home / "bin" / "python", "-c", ""], capture_output=True, text=True, check=True)
    assert said.stderr == ""


def test_a_compiled_module_has_its_name_once_it_is_durable(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[str]] = []

    def sync(folder: Path) -> None:
        seen.append({path.suffix for path in folder.rglob("__pycache__/*")})
        raise OSError("the disk fails")

    monkeypatch.setattr("bundler.install.compiled.sync_file_system", sync)
    with pytest.raises(OSError, match="the disk fails"):
        compile_modules(PYTHON, [package], "demo", SILENT)
    assert seen == [{".new"}]
    monkeypatch.undo()
    compile_modules(PYTHON, [package], "demo", SILENT)
    assert {path.suffix for path in package.rglob("__pycache__/*")} == {".pyc"}


def test_an_interpreter_that_breaks_off_is_said(package: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'no such thing'; kill -9 $$\n")
    python.chmod(0o755)
    with pytest.raises(InstallError, match="couldn't be compiled") as refused:
        compile_modules(python, [package], "demo", SILENT)
    assert "signal 9" in refused.value.what and refused.value.findings == ("no such thing",)
