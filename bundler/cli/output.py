"""The one place where a command prints: to people through a filter, to programs as one object of JSON."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bundler.cli.typed import typed
from bundler.common.secrets import masked
from bundler.common.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TextIO

    from bundler.errors import BundlerError

SCHEMA = 1
"""The version of what ``--json`` prints, in docs/JSON.md; it grows where a key goes or changes."""


@dataclasses.dataclass
class Manner:
    """How the command that runs is to speak; set by its words."""

    command: str | None = None
    json: bool = False
    quiet: bool = False
    """Only the answer and errors."""
    verbose: bool = False
    """Each line of news with the time since the start, and the programs that are run."""
    folders: dict[str, str] = dataclasses.field(default_factory=dict)
    """What ``-C`` named, by the commands that could be given it, too."""
    started: float = 0.0
    """By the monotonic clock."""
    facts: dict[str, Any] | None = None
    """What it answered; ``None`` once that is printed."""

    def begin(self, command: str | None, words: Sequence[str]) -> None:
        """Begin anew with a command; ``--json`` counts even where its other words are off."""
        self.command, self.facts, self.started = command, {}, time.monotonic()
        self.quiet, self.verbose, self.folders = False, False, {}
        self.json = "--json" in itertools.takewhile(lambda word: word != "--", words)


MANNER = Manner()
"""The manner of the one command that a process runs: news come from threads that know no context of click."""


def answer(facts: object, *lines: str) -> None:
    """Give a command's answer: to programs the facts, to people the lines.

    :param facts: a mapping, a struct or a dataclass; its keys stand in the object that is printed at the end.
    """
    if MANNER.json:
        MANNER.facts = (MANNER.facts or {}) | named(facts)
    elif lines:
        with unheard(sys.stdout):
            show(*lines)


def show(*lines: str) -> None:
    """Print lines of the answer to standard output, or beside an answer for programs to standard error.

    What others wrote can neither command a terminal nor add a line.
    """
    click.echo("\n".join(printable(line.replace("\n", "\\n")) for line in lines), err=MANNER.json)


def answer_columns() -> int:
    """Return the columns of the terminal that answers go to; 0 where it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 0


def show_text(text: str) -> None:
    """Print a text that programs read, as a unit or a page: exact but on a terminal."""
    exact = text.encode(errors="surrogateescape")
    click.echo(printable(text) if sys.stdout.isatty() else exact, nl=False)


def show_facts(facts: object) -> None:
    """Print facts as they are, in plain ASCII: in a terminal, too, no letter commands or hides anything."""
    # DEL is the one control that JSON leaves as it is.
    click.echo(json.dumps(named(facts), indent=1).replace("\x7f", "\\u007f"))


def show_document(exit_code: int = 0, problem: BundlerError | None = None) -> None:
    """Print the answer for programs with the command's end, once; what comes later the exit code tells."""
    if not MANNER.json or MANNER.facts is None:
        return
    head = {"schema": SCHEMA, "command": MANNER.command, "exit_code": exit_code}
    facts, MANNER.facts = MANNER.facts, None
    with unheard(sys.stdout):
        show_facts({**head, "error": None if problem is None else error_facts(problem), **facts})


def error_facts(problem: BundlerError) -> dict[str, Any]:
    """Return an error as programs read it."""
    return {
        "code": problem.exit_code,
        "what": masked(problem.what),
        "where": None if problem.where is None else masked(str(problem.where)),
        "fix": None if problem.hint is None else masked(typed(problem.hint, MANNER.folders)),
        "findings": [masked(one) for one in problem.findings],
    }


def named(value: Any) -> Any:
    """Return a value as JSON has it, each row of it as an object with names."""
    import msgspec

    if isinstance(value, msgspec.Struct):
        keys = zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True)
        told = {key: getattr(value, field) for field, key in keys}
        return {key: named(one) for key, one in told.items() if one is not msgspec.UNSET}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: named(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): named(one) for key, one in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [named(one) for one in value]
    return str(value) if isinstance(value, Path) else msgspec.to_builtins(value)


def say(line: str, *, result: bool = False) -> None:
    """Print a line of news to standard error, or of the result to standard output.

    Never raises: work that must be done to its end doesn't depend on who hears of it.
    """
    if MANNER.quiet and not result:
        return
    line = typed(line, MANNER.folders)
    if MANNER.verbose and not result:
        line = f"{time.monotonic() - MANNER.started:8.1f} s  {line}"
    stream = sys.stdout if result and not MANNER.json else sys.stderr
    with unheard(stream):
        if "tqdm" in sys.modules:
            from tqdm import tqdm

            # Beside a line that counts in place, or a bar: above it.
            tqdm.write(printable(line), file=stream)
        else:
            click.echo(printable(line), file=stream)
        stream.flush()


def say_error(problem: BundlerError) -> None:
    """Print an error to standard error."""
    color = "red" if problem.label == "error" else "yellow"
    word = click.style(problem.label, fg=color, bold=True) if is_colored() else problem.label
    with unheard(sys.stderr):
        click.echo(f"{word}: {typed(str(problem), MANNER.folders)}", err=True)


def is_colored() -> bool:
    """Say whether standard error takes colours: a terminal, unless told otherwise (https://no-color.org)."""
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


@contextmanager
def unheard(stream: TextIO) -> Iterator[None]:
    """Go on silently where the terminal is closed, the reader of the pipe gone, or the letters unknown."""
    try:
        yield
    except OSError:
        # What is in the buffer would raise again at exit.
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
    except ValueError:
        return
