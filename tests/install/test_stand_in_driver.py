"""A rehearsal proves native modules: the driver is stood in for, and this host lends no library."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from bundler.errors import InstallError
from bundler.install.sanity import Imports, check_imports
from bundler.install.stand_in_driver import DRIVER, NO_DEVICE, driver_functions, library

if TYPE_CHECKING:
    from pathlib import Path

NATIVE = Imports(wanted=("native",))
needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc to make a native module with")
LOAD = [sys.executable, "-c", f"import ctypes; ctypes.CDLL({DRIVER!r})"]
no_driver = pytest.mark.skipif(
    subprocess.run(LOAD, check=False, capture_output=True).returncode == 0, reason="this host has a driver"
)


@pytest.mark.parametrize("count", [0, 1, 2, 300])
def test_its_functions_say_that_there_is_no_device(tmp_path: Path, count: int) -> None:
    names = [f"cuFunction{index}" for index in range(count)]
    path = tmp_path / DRIVER
    path.write_bytes(library(DRIVER, names))
    loaded = ctypes.CDLL(str(path))
    assert {getattr(loaded, name)() for name in names} <= {NO_DEVICE}
    assert not hasattr(loaded, "cuOther")


class Native:
    """An environment with a module ``native`` that is linked with the driver, or another library."""

    def __init__(self, root: Path) -> None:
        self.prefix, self.outside = root / "env", root / "host"
        self.site = self.prefix / "lib" / "site"
        for folder in (self.prefix / "bin", self.site, self.outside):
            folder.mkdir(parents=True)
        python = self.prefix / "bin/python"
        python.write_text(f'#!/bin/sh\nPYTHONPATH={self.site} exec {sys.executable} "$@"\n')
        python.chmod(0o755)

    def library(self, path: Path, source: str, *words: object) -> Path:
        command = ["gcc", "-w", "-shared", "-fPIC", "-xc", "-", "-o", str(path), f"-Wl,-soname,{path.name}"]
        # -xc is for what stands on standard input alone.
        command += ["-xnone", *map(str, words)]
        subprocess.run(command, input=source, text=True, check=True)
        return path

    def module(self, linked: Path, function: str, answer: int) -> None:
        """Write the module: its library calls a function of the one that it is linked with."""
        source = f"int {function}(void); int call(void) {{ return {function}(); }}"
        own = self.library(self.site / "own.so", source, linked, f"-Wl,-rpath,{self.outside}")
        text = f"import ctypes\nassert ctypes.CDLL({str(own)!r}).call() == {answer}\n"
        (self.site / "native.py").write_text(text)


@pytest.fixture
def native(tmp_path: Path) -> Native:
    return Native(tmp_path)


@needs_gcc
@no_driver
def test_a_module_of_the_drivers_is_imported_without_one(native: Native, tmp_path: Path) -> None:
    (tmp_path / "link").mkdir()
    driver = native.library(tmp_path / "link" / DRIVER, "int cuInit(void) { return 0; }")
    native.module(driver, "cuInit", NO_DEVICE)
    native.library(native.site / "libown.so", "int cuOwnThing(void) { return 1; } int cudaMalloc(void);")
    assert driver_functions(native.prefix) == ["cuInit"]
    assert check_imports(native.prefix, NATIVE, elsewhere=True) == {"native": ""}
    alone = [native.prefix / "bin/python", "-c", "import native"]
    done = subprocess.run(alone, capture_output=True, text=True, check=False)
    assert DRIVER in done.stderr, "nobody else sees it"
    assert "LD_LIBRARY_PATH" not in os.environ or DRIVER not in os.environ["LD_LIBRARY_PATH"]


@needs_gcc
def test_what_only_this_host_has_is_refused_by_name(native: Native) -> None:
    source = "int numa_available(void) { return 7; }"
    numa = native.library(native.outside / "libnumalike.so.1", source)
    native.module(numa, "numa_available", 7)
    assert check_imports(native.prefix, NATIVE) == {"native": ""}, "where it is installed it may be used"
    with pytest.raises(InstallError, match=r"needs libnumalike\.so\.1, which this host has") as caught:
        check_imports(native.prefix, NATIVE, elsewhere=True)
    assert caught.value.findings == ("lib/site/own.so is linked with libnumalike.so.1",)
    numa.rename(native.prefix / "lib" / numa.name)
    with pytest.raises(InstallError, match=r"\(the library libnumalike\.so\.1 isn't there\)") as caught:
        check_imports(native.prefix, NATIVE)
    assert "libnumalike.so.1" in (caught.value.hint or "")
    native.outside.rmdir()
    native.outside.symlink_to(native.prefix / "lib")
    assert check_imports(native.prefix, NATIVE, elsewhere=True) == {"native": ""}


@needs_gcc
def test_kernels_of_another_version_are_named(native: Native) -> None:
    other = native.library(native.outside / "libkernels.so.1", "int old_name(void) { return 0; }")
    native.module(other, "old_name", 0)
    native.library(other, "int new_name(void) { return 0; }")
    with pytest.raises(InstallError, match=r"the library own\.so wants old_name, which no other has"):
        check_imports(native.prefix, NATIVE)


@pytest.mark.parametrize(("broken", "passes"), [(False, True), (True, False)])
def test_a_part_of_the_server_is_left_out_only_where_it_is_not_there(
    native: Native, broken: bool, passes: bool
) -> None:
    package = native.site / "server"
    package.mkdir()
    (package / "__init__.py").write_text("import not_there_at_all\n" * broken)
    imports = Imports(wanted=("json",), if_there=("server.entry.http", "server.scheduler", "other.part"))
    if passes:
        assert set(check_imports(native.prefix, imports)) == {"json"}
    else:
        with pytest.raises(InstallError, match=r"import server"):
            check_imports(native.prefix, imports)
