"""A conda environment's activation as variables, without pixi or conda.

What ``pixi run`` gives a process beyond its ``PATH`` comes from the environment's packages: a compiler's
``etc/conda/activate.d/*.sh`` names itself in ``CC`` and ``CXX``, others set what their libraries look for.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from bundler.common.broken import BROKEN_TEXT
from bundler.errors import InstallError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

TIMEOUT = 60.0
"""Seconds the activation scripts may take together; they set variables and no more."""

FOREIGN = ("PYTHONHOME", "CONDA_PROMPT_MODIFIER", "BASH_ENV", "ENV")
"""Variables that belong to another interpreter or shell, and would lead this environment astray."""

_RUN_AND_SHOW = 'for script in "$@"; do . "$script" >&2; done; exec "$BUNDLER_CAT" /proc/self/environ'
_OF_THE_SHELL = frozenset({"_", "SHLVL", "OLDPWD", "PWD", "BUNDLER_CAT"})


def activation_environment(prefix: Path, base: Mapping[str, str]) -> dict[str, str]:
    """Return the whole environment of a process that runs with an environment activated.

    The order is conda's: ``PATH`` and ``CONDA_PREFIX`` first, then the variables that packages state
    (``etc/conda/env_vars.d``, ``conda-meta/state``), then the scripts of ``etc/conda/activate.d``, sorted.

    :param prefix: the environment's folder.
    :param base: the variables to build on, usually ``os.environ``; none of them is changed in place. Those of
        an environment that was active before are replaced.
    :raises InstallError: the environment isn't there, or a script of it failed.
    """
    prefix = prefix.absolute()
    if not (prefix / "bin").is_dir():
        raise InstallError(
            "there is no environment to activate", where=prefix, hint="install it with: bundler install"
        )
    variables = {key: value for key, value in base.items() if key not in FOREIGN}
    variables["PATH"] = _search_path(prefix, base)
    variables["CONDA_PREFIX"] = str(prefix)
    variables["CONDA_DEFAULT_ENV"] = prefix.name
    variables["CONDA_SHLVL"] = "1"
    variables |= _stated_variables(prefix)
    scripts = sorted((prefix / "etc" / "conda" / "activate.d").glob("*.sh"))
    return _run_scripts(scripts, variables) if scripts else variables


def _search_path(prefix: Path, base: Mapping[str, str]) -> str:
    """Put the environment's ``bin`` first and take out the one that was active before."""
    own = str(prefix / "bin")
    before = f"{base['CONDA_PREFIX']}/bin" if base.get("CONDA_PREFIX") else own
    rest = [part for part in base.get("PATH", os.defpath).split(os.pathsep) if part not in ("", own, before)]
    return os.pathsep.join([own, *rest])


def _stated_variables(prefix: Path) -> dict[str, str]:
    """Collect the variables that packages state in files."""
    variables: dict[str, Any] = {}
    for path in sorted((prefix / "etc" / "conda" / "env_vars.d").glob("*.json")):
        variables |= _read_object(path)
    state = prefix / "conda-meta" / "state"
    if state.is_file():
        of_user = _read_object(state).get("env_vars", {})
        variables |= {key.upper(): value for key, value in of_user.items()}
    return {key: value for key, value in variables.items() if isinstance(value, str)}


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, *BROKEN_TEXT) as problem:
        raise InstallError(
            f"a file of the environment's activation can't be read: {problem}", where=path
        ) from problem
    return value if isinstance(value, dict) else {}


def _run_scripts(scripts: Sequence[Path], variables: dict[str, str]) -> dict[str, str]:
    """Source the scripts in one shell and read back what it exports."""
    # The scripts are written for bash, as conda and pixi run them; few of them are plain sh.
    search = variables["PATH"]
    bash = shutil.which("bash", path=search)
    shell = [bash, "--noprofile", "--norc"] if bash else [shutil.which("sh", path=search) or "/bin/sh"]
    given = variables | {"BUNDLER_CAT": shutil.which("cat", path=search) or "/bin/cat"}
    command = [*shell, "-c", _RUN_AND_SHOW, "activate", *map(str, scripts)]
    try:
        done = subprocess.run(
            command, env=given, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise InstallError(
            f"the environment's activation failed: {problem}", where=scripts[0].parent
        ) from problem
    if done.returncode != 0 or not done.stdout:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-5:]
        raise InstallError(
            f"the environment's activation ended with exit code {done.returncode} before its end",
            findings=said,
            where=scripts[0].parent,
            hint="the scripts are written for bash: is it installed?" if not bash else None,
        )
    shown = (entry.partition(b"=") for entry in done.stdout.split(b"\0") if entry)
    after = {os.fsdecode(key): os.fsdecode(value) for key, _, value in shown}
    kept = {key: value for key, value in variables.items() if key in _OF_THE_SHELL}
    return {key: value for key, value in after.items() if key not in _OF_THE_SHELL} | kept


def main() -> None:
    """Print an environment's activation as shell code: ``python -m bundler.activation PREFIX``."""
    import shlex
    from pathlib import Path

    if len(sys.argv) != 2:
        sys.exit("usage: python -m bundler.activation PREFIX")
    before = dict(os.environ)
    try:
        after = activation_environment(Path(sys.argv[1]), before)
    except InstallError as problem:
        sys.exit(f"error: {problem}")
    for key in sorted(after):
        if before.get(key) != after[key] and key.isidentifier():
            print(f"export {key}={shlex.quote(after[key])}")
    for key in sorted(set(before) - set(after)):
        if key.isidentifier():
            print(f"unset {key}")


if __name__ == "__main__":
    main()
