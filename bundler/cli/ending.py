"""How a command ends that can't go on: whatever was raised becomes one error with a message and a code."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NoReturn

import click

from bundler.cli.output import say_error, show_document
from bundler.cli.usage import usage_error
from bundler.common.disk_trouble import advice
from bundler.errors import BundlerError, InterruptError, PreflightError

if TYPE_CHECKING:
    from collections.abc import Sequence


def fail(problem: BundlerError) -> NoReturn:
    """Tell an error to people and programs, and exit by its code."""
    say_error(problem)
    show_document(problem.exit_code, problem)
    sys.exit(problem.exit_code)


def problem_of(raised: BaseException, words: Sequence[str]) -> BundlerError:
    """Return what was raised as an error with its message and code.

    :param words: the command line.
    """
    match raised:
        case BundlerError():
            return raised
        case click.UsageError():
            return usage_error(raised, words)
        case click.ClickException():
            return BundlerError(raised.format_message())
        case click.Abort() | KeyboardInterrupt():
            return InterruptError("the same command goes on where it stopped")
        case OSError():
            return _of_system(raised)
    return BundlerError(
        f"unexpected {type(raised).__name__}: {raised}",
        hint="this is a defect of bundler; BUNDLER_DEBUG=1 shows the traceback to report",
    )


def _of_system(raised: OSError) -> BundlerError:
    fix = advice(raised)
    kind = PreflightError if fix else BundlerError
    return kind(str(raised.strerror or raised), where=raised.filename, hint=fix)
