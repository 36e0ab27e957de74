"""Signals that end a command: turned into exceptions, held back while a server is being started."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

    Handler = Callable[[int, FrameType | None], object] | signal.Handlers

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class TerminatedError(BaseException):
    """SIGTERM or SIGHUP told this command to end."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


@contextlib.contextmanager
def held_signals() -> Iterator[Callable[[], None]]:
    """Hold signals back until what is yielded is called; it and all that follows raise them.

    :raises TerminatedError: SIGTERM or SIGHUP came.
    :raises KeyboardInterrupt: SIGINT came.
    """
    held: list[int] | None = []

    def told(number: int, frame: FrameType | None) -> None:
        if held is not None:
            held.append(number)
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            raise TerminatedError(number)

    def release() -> None:
        nonlocal held
        came, held = held or [], None
        for number in came:
            told(number, None)

    # One that is ignored, as nohup has it, stays ignored.
    with _handled([one for one in ENDING if signal.getsignal(one) != signal.SIG_IGN], told):
        yield release


@contextlib.contextmanager
def unheeded_signals() -> Iterator[None]:
    """Let no signal break off what the block does: a closed terminal sends more than one."""
    with _handled(ENDING, signal.SIG_IGN):
        yield


@contextlib.contextmanager
def _handled(numbers: Sequence[signal.Signals], handler: Handler) -> Iterator[None]:
    """Handle signals in one way within the block."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
