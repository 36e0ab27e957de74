"""What an interpreter that is there already has installed, asked of itself without heavy imports."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bundler.common.ask import ask
from bundler.common.broken import BROKEN_JSON
from bundler.errors import InputError
from bundler.host.surroundings import NEUTRAL_FOLDER, SAFE_PATH, inherited
from bundler.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Collection

PROBE_SECONDS = 120.0

_PROBE = r"""
import importlib.metadata as metadata, importlib.util, json, os, platform, re, sys
def version(*names):
    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
def torch_cuda():
    try:
        folder = importlib.util.find_spec("torch").submodule_search_locations[0]
        with open(os.path.join(folder, "version.py")) as file:
            return re.search(r"^cuda\b.*=\s*['\"]([\d.]+)", file.read(), re.M).group(1)
    except Exception:
        return None
print(json.dumps(dict(executable=sys.executable, prefix=sys.prefix, python=platform.python_version(),
    sglang=version("sglang"), torch=version("torch"), cuda=torch_cuda(),
    kernel=version("sgl-kernel", "sglang-kernel"),
    cudnn=version("nvidia-cudnn-cu12", "nvidia-cudnn-cu13"))))
"""


class Interpreter(Stack, frozen=True, kw_only=True):
    """An interpreter's own account."""

    executable: str
    prefix: str
    kernel: str | None = None
    """The version of sgl-kernel."""


def find_interpreter(word: str) -> Path:
    """Return the path of ``--python``: a path, or a program on PATH.

    :raises InputError: there is none.
    """
    found = shutil.which(word)
    if found is None:
        raise InputError(f"no interpreter {word!r}", hint="give --python a path or a program on PATH")
    return Path(found).absolute()


def probe(python: Path, keep: Collection[str] = ()) -> Interpreter:
    """Ask an interpreter what it has, with the variables that a server of it would have.

    :param keep: the caller's variables that reach it all the same.
    :raises InputError: it doesn't run or doesn't answer.
    """
    try:
        variables = inherited(os.environ, keep) | SAFE_PATH
        done = ask([python, "-c", _PROBE], seconds=PROBE_SECONDS, variables=variables, folder=NEUTRAL_FOLDER)
        if done.code != 0:
            raise InputError("the interpreter doesn't run", where=python, findings=done.last(1))
        return msgspec.json.decode(done.out, type=Interpreter)
    except (OSError, *BROKEN_JSON) as problem:
        raise InputError(f"the interpreter doesn't answer: {problem}", where=python) from problem
