"""A module of bundler's in a process of its own: a task goes in; progress, news and one answer come out.

The task is JSON on standard input. Each line of standard output is a :class:`_Told`; whatever else is printed
there, as by a library, is a detail too.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, NoReturn, TypeVar

import msgspec

from bundler.common.broken import BROKEN_JSON
from bundler.install.namespace import child_environment
from bundler.install.program import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from bundler.common.progress import Meter
    from bundler.install.program import Ended

T = TypeVar("T")
A = TypeVar("A")


class _Told(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One thing that the inner side tells."""

    advance: int | None = None
    """Units of the phase that are done."""
    say: str | None = None
    """A line for people."""
    detail: str | None = None
    """A line of a program, for people who want to see all."""
    answer: object = None
    """What came of the task."""


def call(
    module: str,
    task: msgspec.Struct,
    answer: type[A],
    variables: Mapping[str, str],
    folder: Path,
    meter: Meter,
    *,
    isolated: Callable[[Sequence[str]], Sequence[str]] = tuple,
    held: int | None = None,
) -> tuple[A | None, Ended]:
    """Run a module that ends with :func:`answer_and_exit`, and show what it tells.

    Interrupted, it is ended first.

    :param answer: the answer's type.
    :param variables: its environment, in which it finds this very bundler besides.
    :param folder: its working folder.
    :param isolated: puts what cuts the network before a command.
    :param held: a file descriptor that it inherits, for a lock that lasts as long as it.
    :returns: the answer, or ``None`` where it failed or ended without one; and how it ended.
    :raises InstallError: it can't be started.
    """
    lines = _Lines(answer, meter)
    ended = run(
        isolated([sys.executable, "-P", "-B", "-m", module]),
        child_environment(variables),
        folder,
        lines.hear,
        given=msgspec.json.encode(task).decode(),
        held=held,
    )
    return lines.answer if ended.code == 0 else None, ended


class _Lines(Generic[A]):
    """What the inner side tells: progress is counted, the answer kept, and news passed on."""

    def __init__(self, kind: type[A], meter: Meter) -> None:
        self._kind, self._meter = kind, meter
        self.answer: A | None = None

    def hear(self, text: str) -> str | None:
        try:
            line = msgspec.json.decode(text, type=_Told)
            if line.answer is not None:
                self.answer = msgspec.convert(line.answer, self._kind)
        except BROKEN_JSON:
            line = _Told(detail=text)
        if line.advance is not None:
            self._meter.advance(line.advance)
        if line.say is not None:
            self._meter.say(line.say)
        if line.detail is not None:
            self._meter.detail(line.detail)
        return line.say if line.detail is None else line.detail


class OuterSide:
    """The outer side as the inner one sees it: a reporter and its meters in one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @contextmanager
    def phase(
        self, name: str, total: int | None = None, *, unit: str = "B", done: int = 0
    ) -> Iterator[Meter]:
        """Tell the phase's name."""
        self.say(name)
        yield self

    def advance(self, amount: int) -> None:
        """Have the outer side count."""
        self._tell(_Told(advance=amount))

    def say(self, line: str) -> None:
        """Have the outer side show a line, or several."""
        for one in line.splitlines():
            self._tell(_Told(say=one))

    def detail(self, line: str) -> None:
        """Have the outer side show a line of a program, or several."""
        for one in line.splitlines():
            self._tell(_Told(detail=one))

    def give(self, answer: object) -> None:
        """Give the answer."""
        self._tell(_Told(answer=answer))

    def _tell(self, line: _Told) -> None:
        """Print a whole line at once: the mirror's threads count while the installer speaks."""
        with self._lock:
            sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
            sys.stdout.flush()


def answer_and_exit(kind: type[T], work: Callable[[T, OuterSide], object]) -> NoReturn:
    """Do the task that stands on standard input, give the answer, and end: the inner side's whole program.

    An exception is told as a line, for the outer side to find the cause in.

    :param kind: the task's type.
    """
    outer = OuterSide()
    code = 0
    try:
        outer.give(work(msgspec.json.decode(sys.stdin.buffer.read(), type=kind), outer))
    except KeyboardInterrupt:
        code = 130
    except Exception as problem:
        outer.detail(f"{type(problem).__name__}: {problem}")
        code = 1
    sys.stdout.flush()
    # rattler's threads may be about to report to the interpreter yet: an orderly end aborts on them at times.
    os._exit(code)
