"""What click says of a command's words, in bundler's own form: what, and what to type instead."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bundler.cli.command import SHARED_WORDS
from bundler.cli.examples import EXAMPLES
from bundler.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PROGRAM = "bundler"
SERVER_FLAGS = "extra"
"""The parameter of those commands that take SGLang's own flags after ``--``."""


def no_such_command(word: str, known: Iterable[str]) -> UsageError:
    """Return the error for a command that isn't there, with those of a near name."""
    return UsageError(f"no such command {word!r}", hint=_instead(get_close_matches(word, known), PROGRAM))


def usage_error(problem: click.UsageError, words: Sequence[str]) -> UsageError:
    """Return click's complaint as bundler's own.

    :param words: the command line.
    """
    if isinstance(problem, click.NoSuchOption):
        return _no_such_option(problem, words)
    if _is_of_a_path(problem):
        # It says which one, and what it isn't.
        text = problem.message.strip().removesuffix(".")
        hint = f"check it, and that its disk is there; relative ones begin at {Path.cwd()}"
        return UsageError(text[:1].lower() + text[1:], hint=hint)
    text = " ".join(problem.format_message().split()).removesuffix(".")
    path = problem.ctx.command_path if problem.ctx else PROGRAM
    hint = _instead((), path)
    if isinstance(problem, click.MissingParameter) and (shown := EXAMPLES.get(path.rpartition(" ")[2])):
        hint = f"for example: {shown[0]}; {hint}"
    return UsageError(text[:1].lower() + text[1:], hint=hint)


def _is_of_a_path(problem: click.UsageError) -> bool:
    kind = getattr(problem.param, "type", None) if isinstance(problem, click.BadParameter) else None
    return isinstance(kind, click.Path) and bool(problem.message)


def _no_such_option(problem: click.NoSuchOption, words: Sequence[str]) -> UsageError:
    option = problem.option_name
    command = problem.ctx.command if problem.ctx else None
    path = problem.ctx.command_path if problem.ctx else PROGRAM
    what = f"no such option {option!r}"
    takes_flags = command is not None and any(one.name == SERVER_FLAGS for one in command.params)
    if takes_flags and option.startswith("--") and (not problem.possibilities or _is_sglangs(option)):
        hint = f"SGLang's own flags go after --: {path} -- {_with_value(option, words)}"
        return UsageError(f"{what} of {path}", hint=hint)
    if path == PROGRAM and option in SHARED_WORDS:
        return UsageError(f"{option} stands behind the command", hint=f"{PROGRAM} COMMAND {option}")
    return UsageError(what, hint=_instead(problem.possibilities or (), path))


def _is_sglangs(option: str) -> bool:
    from bundler.launch_names import FLAGS

    return option.removeprefix("--") in FLAGS


def _with_value(option: str, words: Sequence[str]) -> str:
    """Return an option as it was typed, with the value that followed it."""
    for word, following in zip(words, [*words[1:], "-"], strict=True):
        if word.partition("=")[0] == option:
            return word if "=" in word or following.startswith("-") else f"{word} {following}"
    return option


def _instead(near: Iterable[str], path: str) -> str:
    """Return what to type, or where to read what there is."""
    shown = f"{path} --help lists what there is"
    return f"did you mean {' or '.join(near)}? {shown}" if near else shown
