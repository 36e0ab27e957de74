"""The sanity check of an installed environment, run by its own interpreter with the server's environment."""

from __future__ import annotations

import subprocess
from importlib import resources
from typing import TYPE_CHECKING

import msgspec

from bundler.errors import DoctorError
from bundler.host.surroundings import NEUTRAL_FOLDER
from bundler.serve.failures import ending, explain, telling

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

CHECK_SECONDS = 900.0
"""torch, sglang and a kernel's compilation from a cold disk take minutes."""
MARK = "BUNDLER-CHECK "
"""Begins the script's lines of results, among whatever the libraries print."""


class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """One part of the check."""

    name: str
    passed: bool
    seconds: float
    seen: str
    cause: str = ""
    fix: str = ""


def run_check(
    python: Path,
    environment: Mapping[str, str],
    imports: Sequence[str] = ("torch", "sglang", "sgl_kernel"),
    *,
    timeout: float = CHECK_SECONDS,
) -> list[CheckResult]:
    """Import, compile a Triton kernel and reduce over all visible GPUs.

    :param python: the environment's interpreter.
    :param environment: exactly the variables that the server gets.
    :param imports: the modules to import.
    :raises DoctorError: the interpreter doesn't run, or not to its end.
    """
    with resources.as_file(resources.files("bundler.serve").joinpath("data/check_environment.py")) as path:
        # The script lies in a file, since Triton reads its kernel's source and the ranks start it again.
        command = [str(python), str(path), ",".join(imports)]
        try:
            done = subprocess.run(
                command,
                env=dict(environment),
                cwd=NEUTRAL_FOLDER,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as problem:
            raise DoctorError(f"the check isn't through after {timeout:.0f} s", where=python) from problem
        except OSError as problem:
            raise DoctorError(
                f"the interpreter doesn't start: {problem.strerror}",
                where=python,
                hint="install the environment with: bundler install",
            ) from problem
    return _results(done, python)


def _results(done: subprocess.CompletedProcess[str], python: Path) -> list[CheckResult]:
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    results = [msgspec.json.decode(line.removeprefix(MARK), type=CheckResult) for line in lines]
    output = [*done.stdout.splitlines(), *done.stderr.splitlines()]
    if done.returncode not in (0, 1) or not results:
        known = explain(output)
        raise DoctorError(
            f"the check broke off: {ending(done.returncode)}",
            where=python,
            findings=telling(output) + ([f"cause: {known.cause}"] if known else []),
            hint=known.fix if known else None,
        )
    return [_explained(result) for result in results]


def _explained(result: CheckResult) -> CheckResult:
    known = None if result.passed else explain(result.seen.splitlines())
    if known is None:
        return result
    return msgspec.structs.replace(result, cause=known.cause, fix=known.fix)


def table(results: Sequence[CheckResult]) -> list[str]:
    """Return the results as lines of a table."""
    width = max(len(result.name) for result in results)
    lines: list[str] = []
    for one in results:
        said = one.seen.strip().splitlines() or [""]
        shown = said[0] if one.passed else said[-1]
        lines.append(f"{'ok  ' if one.passed else 'FAIL'} {one.name:<{width}}  {one.seconds:6.1f} s  {shown}")
        if one.cause:
            lines.append(f"     {'':<{width}}  cause: {one.cause}; fix: {one.fix}")
    return lines
