"""The check that an environment's interpreter runs, with this test's own interpreter and small modules."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from bundler.environment_check import CheckRun, run_script
from bundler.errors import DoctorError, InstallError
from bundler.install.sanity import Imports, check_imports
from bundler.serve.check import run_check

MODULES = {
    "sound": "__version__ = '1.5'\nprint('half a line', end='')",
    "broken": "raise RuntimeError('libcudart.so.12: cannot open shared object file')",
    "deadly": "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)",
    "leaving": "import os\nos._exit(1)",
    "torch": "__version__ = '2.9'\nclass version: cuda = '12.8'\nclass cuda:\n"
    "    is_available = staticmethod(lambda: False)\n    device_count = staticmethod(lambda: 0)",
}


def run(tmp_path: Path, *wanted: str, if_there: tuple[str, ...] = (), compute: bool = False) -> CheckRun:
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    environment = {"PYTHONPATH": str(tmp_path)}
    return run_script(
        [sys.executable],
        environment,
        wanted=wanted,
        if_there=if_there,
        compute=compute,
        failure=InstallError,
    )


def test_each_module_is_imported_and_says_its_version(tmp_path: Path) -> None:
    done = run(tmp_path, "torch", "sound", if_there=("json", "not_there"))
    assert [(one.name, one.passed) for one in done.results] == [
        ("import torch", True),
        ("import sound", True),
        ("import json", True),
    ]
    assert done.results[0].versions == {
        "torch": "2.9",
        "torch.version.cuda": "12.8",
        "torch.cuda.device_count": "0",
    }
    assert done.results[1].seen == "sound 1.5"
    assert not done.broke_off and "half a line" in done.output


def test_a_failed_import_keeps_none_from_being_tried(tmp_path: Path) -> None:
    done = run(tmp_path, "broken", "sound", "not_there")
    assert [one.passed for one in done.results] == [False, True, False]
    assert "libcudart" in done.results[0].seen
    assert done.code == 1 and not done.broke_off


@pytest.mark.parametrize(("module", "code"), [("deadly", -11), ("leaving", 1)])
def test_what_ends_the_interpreter_is_named(tmp_path: Path, module: str, code: int) -> None:
    """Also one that leaves with an exit code that the script itself gives."""
    done = run(tmp_path, "sound", module)
    assert done.broke_off and done.begun == f"import {module}" and done.code == code
    with pytest.raises(DoctorError, match="the check broke off"):
        run_check(Path(sys.executable), {"PYTHONPATH": str(tmp_path)}, ("sound", module))


def test_torch_is_tried_to_compute_where_that_is_asked(tmp_path: Path) -> None:
    names = [one.name for one in run(tmp_path, "torch", compute=True).results]
    assert names == ["import torch", "devices", "triton kernel", "all-reduce"]


def test_no_interpreter(tmp_path: Path) -> None:
    with pytest.raises(DoctorError, match="can't be started"):
        run_check(tmp_path / "python", {})


def test_an_install_names_the_import_that_failed(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").symlink_to(sys.executable)
    assert check_imports(tmp_path, Imports(wanted=("json",), if_there=("not_there",)))
    with pytest.raises(InstallError, match=r"import not_there failed .* \(exit code 1\)") as caught:
        check_imports(tmp_path, Imports(wanted=("json", "not_there")))
    assert "ModuleNotFoundError" in caught.value.findings[-1]


def test_an_import_that_ends_its_interpreter_with_success_has_failed(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "leaving.py").write_text("import os\nos._exit(0)")
    python = tmp_path / "bin/python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(tmp_path))} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    with pytest.raises(InstallError, match="import leaving failed"):
        check_imports(tmp_path, Imports(wanted=("json", "leaving")))
