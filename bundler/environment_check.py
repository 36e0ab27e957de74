"""The check of an environment from inside: a script that its own interpreter runs, and what it reports."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

import msgspec

from bundler.common.ask import Said, ask
from bundler.common.units import duration_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bundler.errors import BundlerError

CHECK_SECONDS = 900.0
"""torch, sglang and a kernel's compilation from a cold disk take minutes."""
LOADED = "loaded"
"""The result that names the files that were loaded."""
MARK = "BUNDLER-CHECK "
"""Begins the script's lines of results, among whatever the libraries print."""


class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """One part of the check."""

    name: str
    """``import torch``, ``triton kernel``."""
    passed: bool
    seconds: float
    seen: str
    versions: dict[str, str] = {}
    """What a module that was imported says of itself: its version under its name."""
    cause: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True)
class CheckRun:
    """How the script ended."""

    results: list[CheckResult]
    """Of each part that came to its end."""
    begun: str
    """The last part that was begun; empty where none was."""
    code: int
    output: list[str]
    """What the script and the libraries printed."""

    @property
    def broke_off(self) -> bool:
        """Whether it ended before its end."""
        last = self.results[-1].name if self.results else ""
        return self.code not in (0, 1) or last != self.begun


def run_script(
    command: Sequence[str | Path],
    environment: Mapping[str, str],
    *,
    wanted: Sequence[str],
    if_there: Sequence[str] = (),
    compute: bool = False,
    loaded: bool = False,
    timeout: float = CHECK_SECONDS,
    cwd: Path | None = None,
    failure: type[BundlerError],
) -> CheckRun:
    """Import modules, and try what torch computes with where that is asked.

    :param command: the environment's interpreter, with its options.
    :param environment: exactly the variables that it gets.
    :param wanted: modules that must be there.
    :param if_there: modules that are imported where they exist.
    :param compute: whether a Triton kernel is compiled and the visible GPUs reduce together.
    :param loaded: whether the last result, :data:`LOADED`, names the files that were loaded, a line each.
    :param timeout: seconds for all of it.
    :raises BundlerError: of the class ``failure``; the interpreter doesn't run, or not to its end.
    """
    modules = {"wanted": list(wanted), "if_there": list(if_there)}
    task = json.dumps({**modules, "compute": compute, "loaded": loaded})
    with resources.as_file(resources.files("bundler").joinpath("data/check_environment.py")) as script:
        # It lies in a file, since Triton reads its kernel's source and the ranks start it again.
        try:
            done = ask([*command, script, task], seconds=timeout, variables=environment, folder=cwd)
        except TimeoutError as problem:
            what = f"the check isn't through after {duration_text(timeout)}"
            raise failure(what, where=command[0]) from problem
        except OSError as problem:
            raise failure(
                f"the environment's Python can't be started: {problem.strerror}",
                where=command[0],
                hint="install the environment with: bundler install",
            ) from problem
    return _read(done)


def _read(done: Said) -> CheckRun:
    """Tell the script's own lines from the libraries'."""
    results, output, begun = [], [], ""
    for line in done.out.splitlines():
        if not line.startswith(MARK):
            output.append(line)
        elif b'"passed"' in (data := line.removeprefix(MARK).encode()):
            results.append(msgspec.json.decode(data, type=CheckResult))
        else:
            begun = msgspec.json.decode(data)["name"]
    return CheckRun(results, begun, done.code, [*output, *done.err.splitlines()])
