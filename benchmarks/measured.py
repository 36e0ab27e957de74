"""One step in a process of its own: its seconds, its processors' seconds, and its largest memory."""

from __future__ import annotations

import os
import sys
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Measured:
    """What one run of a step took."""

    seconds: float
    cpu: float
    """Seconds of all processors together."""
    memory: int
    """Bytes: the largest that one process of the step held, the measuring one's own among them."""


def measure(step: Callable[[], None], cores: int) -> Measured:
    """Run a step on so many processors.

    :raises ClickException: it failed; what it said is on standard error.
    """
    begin = time.monotonic()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
            step()
            code = 0
        except Exception:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    _, status, usage = os.wait4(child, 0)
    if status:
        raise click.ClickException(f"{getattr(step, '__name__', step)} failed")
    seconds = time.monotonic() - begin
    return Measured(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)
