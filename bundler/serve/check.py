"""The check of an installed environment as the server would run it, with causes for what failed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bundler.environment_check import CHECK_SECONDS, run_script
from bundler.errors import DoctorError
from bundler.host.surroundings import NEUTRAL_FOLDER
from bundler.serve.failures import diagnose, ending, explain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bundler.environment_check import CheckResult


MISSING = re.compile(r"cannot open shared object|undefined symbol")


def run_check(
    python: Path,
    environment: Mapping[str, str],
    imports: Sequence[str] = ("torch", "sglang", "sgl_kernel"),
    *,
    timeout: float = CHECK_SECONDS,
) -> list[CheckResult]:
    """Import, compile a Triton kernel and reduce over all visible GPUs.

    :param environment: exactly the variables that the server gets.
    :raises DoctorError: the interpreter doesn't run, or not to its end.
    """
    run = run_script(
        [python],
        environment,
        wanted=imports,
        compute=True,
        timeout=timeout,
        cwd=Path(NEUTRAL_FOLDER),
        failure=DoctorError,
    )
    if run.broke_off or not run.results:
        findings, fix = diagnose(run.output)
        what = f"the check broke off: {ending(run.code)}"
        raise DoctorError(what, where=python, findings=findings, hint=fix)
    return [_explained(result) for result in run.results]


def _explained(result: CheckResult) -> CheckResult:
    known = None if result.passed else explain(result.seen.splitlines())
    if known is None:
        return result
    return msgspec.structs.replace(result, cause=known.cause, fix=known.fix)


def _decisive(said: Sequence[str]) -> str:
    """Return the line of an exception that says what is missing; else its last.

    sgl_kernel tries several of its libraries, and ends with the name of one that doesn't exist.
    """
    missing = [line.strip() for line in said if MISSING.search(line)]
    return missing[-1] if missing else said[-1]


def table(results: Sequence[CheckResult]) -> list[str]:
    """Return the results as lines of a table."""
    width = max(len(result.name) for result in results)
    lines: list[str] = []
    for one in results:
        said = one.seen.strip().splitlines() or [""]
        shown = said[0] if one.passed else _decisive(said)
        lines.append(f"{'ok  ' if one.passed else 'FAIL'} {one.name:<{width}}  {one.seconds:6.1f} s  {shown}")
        if one.cause:
            lines.append(f"     {'':<{width}}  cause: {one.cause}; fix: {one.fix}")
    return lines
