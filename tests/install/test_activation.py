from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from bundler.activation import activation_environment
from bundler.errors import InstallError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    root = tmp_path / "with space" / "env's"
    for folder in ("bin", "conda-meta", "etc/conda/activate.d", "etc/conda/env_vars.d"):
        (root / folder).mkdir(parents=True)
    return root


def script(prefix: Path, name: str, text: str) -> None:
    (prefix / "etc/conda/activate.d" / name).write_text(text)


def test_path_and_prefix_without_scripts(prefix: Path) -> None:
    after = activation_environment(prefix, {"PATH": "/usr/bin:/bin", "HOME": "/h", "PYTHONHOME": "/x"})
    assert after["PATH"] == f"{prefix}/bin:/usr/bin:/bin"
    assert after["CONDA_PREFIX"] == str(prefix)
    assert after["HOME"] == "/h"
    assert "PYTHONHOME" not in after


def test_scripts_run_in_order_and_see_what_went_before(prefix: Path) -> None:
    script(prefix, "b.sh", 'export CXX="${CC}++"\nexport NOTE="two\nlines"\n')
    script(
        prefix, "a.sh", "echo printed by a script\nexport CC=$CONDA_PREFIX/bin/x86_64-conda-linux-gnu-cc\n"
    )
    script(prefix, "c.fish", "set -gx WRONG 1\n")
    after = activation_environment(prefix, {"PATH": "/usr/bin:/bin"})
    assert after["CC"] == f"{prefix}/bin/x86_64-conda-linux-gnu-cc"
    assert after["CXX"] == f"{prefix}/bin/x86_64-conda-linux-gnu-cc++"
    assert after["NOTE"] == "two\nlines"
    assert {"SHLVL", "_", "WRONG", "BUNDLER_CAT"}.isdisjoint(after)


def test_scripts_of_conda_forge_are_bash(prefix: Path) -> None:
    script(
        prefix,
        "activate-gcc.sh",
        'function _tc() { local names=("CC,cc" "CXX,c++"); for pair in "${names[@]}"; do '
        'export "${pair%%,*}=${CONDA_PREFIX}/bin/${pair##*,}"; done; }\n_tc\nunset -f _tc\n',
    )
    after = activation_environment(prefix, {"PATH": "/usr/bin:/bin"})
    assert after["CC"] == f"{prefix}/bin/cc"
    assert after["CXX"] == f"{prefix}/bin/c++"


def test_a_script_may_unset(prefix: Path) -> None:
    script(prefix, "a.sh", "unset LEFT\n")
    assert "LEFT" not in activation_environment(prefix, {"PATH": "/usr/bin:/bin", "LEFT": "1"})


def test_stated_variables_come_before_the_scripts(prefix: Path) -> None:
    (prefix / "etc/conda/env_vars.d/p.json").write_text(json.dumps({"FROM_PACKAGE": "1", "BOTH": "package"}))
    (prefix / "conda-meta/state").write_text(json.dumps({"env_vars": {"both": "state"}}))
    script(prefix, "a.sh", "export SEEN=$FROM_PACKAGE\n")
    after = activation_environment(prefix, {"PATH": "/usr/bin:/bin"})
    assert (after["FROM_PACKAGE"], after["BOTH"], after["SEEN"]) == ("1", "state", "1")


def test_an_active_environment_is_replaced(prefix: Path) -> None:
    base = {"PATH": f"/old/bin:{prefix}/bin:/usr/bin", "CONDA_PREFIX": "/old", "CONDA_SHLVL": "3"}
    after = activation_environment(prefix, base)
    assert after["PATH"] == f"{prefix}/bin:/usr/bin"
    assert after["CONDA_SHLVL"] == "1"
    assert base["CONDA_PREFIX"] == "/old"


def test_a_failing_script_is_named_with_what_it_said(prefix: Path) -> None:
    script(prefix, "a.sh", "echo no compiler here >&2\nexit 3\n")
    with pytest.raises(InstallError, match="exit code 3") as caught:
        activation_environment(prefix, {"PATH": "/usr/bin:/bin"})
    assert "no compiler here" in str(caught.value)
    script(prefix, "a.sh", "exit 0\n")
    with pytest.raises(InstallError, match="exit code 0 before its end"):
        activation_environment(prefix, {"PATH": "/usr/bin:/bin"})


def test_no_environment(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match="no environment"):
        activation_environment(tmp_path / "absent", {})


def test_a_broken_variables_file_is_named(prefix: Path) -> None:
    (prefix / "etc/conda/env_vars.d/p.json").write_text("{")
    with pytest.raises(InstallError, match=r"p\.json"):
        activation_environment(prefix, {"PATH": "/usr/bin"})


def test_printed_for_eval(prefix: Path) -> None:
    script(prefix, "a.sh", "export CC='a $b'\n")
    code = subprocess.run(
        [sys.executable, "-m", "bundler.activation", str(prefix)], capture_output=True, text=True, check=True
    ).stdout
    shown = subprocess.run(
        ["sh", "-c", code + 'printf "%s|%s" "$CC" "$CONDA_PREFIX"'],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert shown == f"a $b|{prefix}"


def test_an_ending_with_an_exit_code_is_a_failure_whatever_was_printed(tmp_path: Path) -> None:
    prefix = tmp_path / "env"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "etc/conda/activate.d").mkdir(parents=True)
    program = tmp_path / "cat"
    program.write_text("#!/bin/sh\necho A=1\nexit 7\n")
    program.chmod(0o755)
    (prefix / "etc/conda/activate.d/a.sh").write_text(f"export BUNDLER_CAT={program}\n")
    with pytest.raises(InstallError, match="exit code 7"):
        activation_environment(prefix, {"PATH": "/usr/bin:/bin"})
