"""The shell scripts in an installation's ``bin``: ``bundler``, ``pixi`` and an activation per environment.

They find the installation by their own place, so that it may be moved.
"""

from __future__ import annotations

import re
import shlex
import sys
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from bundler.common.disk_trouble import advice
from bundler.errors import BundlerError, DestinationError
from bundler.generations import GENERATIONS, RECORD
from bundler.installation import CACHE

if TYPE_CHECKING:
    from collections.abc import Iterable

PIXI_CACHE = f"{CACHE}/pixi"
"""pixi's cache in an installation: on the environments' file system, so that they are hard links."""


def template(name: str) -> str:
    """Return one of the scripts in ``bundler/install/data`` as it lies there."""
    return (files("bundler.runtime") / "data" / name).read_text("utf-8")


def write_launchers(root: Path, environments: Iterable[str] = ()) -> list[Path]:
    """Write the scripts of an installation, over older ones.

    Without a runtime in the installation they start the interpreter that this bundler runs in.

    :param root: the installation; the scripts find the generation of it that counts whenever they are run.
    :param environments: names of the pixi environments that get ``bin/activate-NAME.sh``.
    :returns: what was written.
    :raises DestinationError: the folder can't be written to.
    """
    root = root.absolute()
    words = {"PYTHON": shlex.quote(sys.executable), "ROOT": shlex.quote(str(root)), "CACHE": PIXI_CACHE}
    words |= {"RECORD": RECORD, "GENERATIONS": GENERATIONS}
    scripts = {"bundler": _fill("bundler.sh", words), "pixi": _fill("pixi.sh", words)}
    for name in environments:
        scripts[f"activate-{name}.sh"] = _fill("activate.sh", words | {"ENVIRONMENT": name})
    written = []
    for name, text in scripts.items():
        path = root / "bin" / name
        try:
            _write_script(path, text)
        except OSError as problem:
            hint = advice(problem) or "make that folder writable; the same command goes on"
            what = f"can't write the launcher: {problem.strerror}"
            raise DestinationError(what, where=path, hint=hint) from problem
        written.append(path)
    return written


def _fill(name: str, words: dict[str, str]) -> str:
    """Put words into a script's ``@PLACES@``."""
    return re.sub(r"@([A-Z]+)@", lambda place: words[place[1]], template(name))


def _write_script(path: Path, text: str) -> None:
    """Replace a script in one step, so that one that runs keeps its own text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(text.encode("utf-8", "surrogateescape"))
    partial.chmod(0o644 if path.suffix == ".sh" else 0o755)
    partial.replace(path)


def main() -> None:
    """Write the launchers that need no environment: ``python -m bundler.runtime.launchers ROOT``."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m bundler.runtime.launchers ROOT")
    try:
        write_launchers(Path(sys.argv[1]))
    except BundlerError as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(problem.exit_code)


if __name__ == "__main__":
    main()
