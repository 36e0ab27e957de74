"""What ``-v`` adds to the news: the programs that are run, what libraries log, time and memory at the end."""

from __future__ import annotations

import logging
import os
import resource
import shlex
import sys
import textwrap
import time
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from bundler.cli.output import MANNER, say
from bundler.common.secrets import masked
from bundler.common.units import duration_text, size_text

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST = 400
"""Letters of a command line that are shown."""


@contextmanager
def timed(name: str) -> Iterator[None]:
    """Show what is run in the block, and at its end what it took."""
    if not MANNER.verbose:
        yield
        return
    _listen()
    try:
        yield
    finally:
        own, child = (_most_memory(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        took = duration_text(time.monotonic() - MANNER.started)
        say(f"{name}: {took}, {own} of memory at most, its largest child {child}")


def _most_memory(who: int) -> str:
    return size_text(resource.getrusage(who).ru_maxrss * 1024)


@cache
def _listen() -> None:
    """Listen to the whole process, once: neither can be taken back."""
    sys.addaudithook(_hear)
    handler = _Said()
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.INFO)


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    """Show the command line of each program that is started, by bundler or by a library."""
    if event == "subprocess.Popen" and MANNER.verbose:
        words = arguments[1]
        shown = words if isinstance(words, str) else shlex.join(map(os.fsdecode, words))
        # A program that is handed over whole, as a text, is told by its beginning.
        say(masked(f"running: {textwrap.shorten(shown, LONGEST, placeholder=' …')}"))


class _Said(logging.Handler):
    """Shows what libraries log."""

    def emit(self, record: logging.LogRecord) -> None:
        if MANNER.verbose:
            say(masked(f"{record.name}: {record.getMessage()}"))
