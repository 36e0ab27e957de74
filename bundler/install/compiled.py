"""Modules compiled when they are installed, so that no start of a server does it.

uv and rattler leave a module as its source. The first import compiles it, and each import does where the user
who serves may not write: SGLang 0.5.7's imports took 51 s so, and 21 s from compiled modules. All 11,800 of
its environment are compiled in 12 s on two cores.
"""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from bundler.common.durable import sync_file_system
from bundler.errors import InstallError
from bundler.install.installer import clean_environment
from bundler.install.program import run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bundler.common.progress import Reporter


STEP = 100
"""Modules that a line of the script stands for."""
NEW = ".new"
"""What the script adds to a compiled module's name."""


def compile_modules(python: Path, folders: Sequence[Path], name: str, reporter: Reporter) -> None:
    """Compile all modules below some folders over all cores; run again, it does what is missing.

    A module that can't be compiled stays as it is. A compiled one gets its name once it is durable: Python
    believes what has one, and stumbles over what a power cut left of it, at its own start, too.

    :param python: the interpreter that will import them.
    :param name: what they belong to, for the progress.
    :raises InstallError: the interpreter can't be started, or broke off.
    :raises OSError: the disk doesn't take what was compiled.
    """
    # The script runs in another folder.
    python, folders = python.absolute(), [folder.absolute() for folder in folders]
    total = sum(1 for folder in folders for _ in folder.rglob("*.py"))
    with (
        TemporaryDirectory(prefix="bundler-compile-") as scratch,
        resources.as_file(resources.files("bundler").joinpath("data/compile_modules.py")) as script,
        reporter.phase(f"compile {name}", total, unit="modules") as meter,
    ):

        def hear(line: str) -> str | None:
            if not line.isdigit():
                meter.detail(line)
                return line
            meter.advance(int(line))
            return None

        # It reads no compiled module from where they lie: one may be damaged.
        apart = ["-X", f"pycache_prefix={scratch}"]
        command = [str(python), "-I", "-B", *apart, "-W", "ignore", str(script), *map(str, folders)]
        variables = clean_environment(os.environ, Path(scratch))
        ended = run(command, variables, Path(scratch), hear)
        if ended.code == 0:
            meter.advance(total % STEP)
    if ended.code != 0:
        raise InstallError(
            f"the modules of {name} couldn't be compiled ({ended.how})", where=python, findings=ended.said()
        )
    for folder in folders:
        sync_file_system(folder)
        for new in [*folder.rglob(f"__pycache__/*.pyc{NEW}")]:
            new.replace(new.with_name(new.name.removesuffix(NEW)))
