"""Lines to type as they work here: by the bundler that was called, and by root without ``sudo``."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from functools import cache
from pathlib import Path

from bundler.cli.summaries import SUMMARIES

_CALL = re.compile(rf"(?<![\w/.-])bundler (?=(?:{'|'.join(SUMMARIES)})\b)")
"""``bundler COMMAND``, without a path before it."""


def typed(text: str) -> str:
    """Return a text whose calls of bundler work here: an installation's own is seldom on ``PATH``."""
    from bundler.installation import OWN_VARIABLE

    program = _program(os.environ.get(OWN_VARIABLE), os.environ.get("PATH"))
    return text if program is None else _CALL.sub(lambda _: f"{program} ", text)


@cache
def _program(own: str | None, path: str | None) -> str | None:
    """Return how the installation's bundler is called, or ``None`` where ``bundler`` does it."""
    if own is None:
        return None
    program, found = Path(own) / "bin" / "bundler", shutil.which("bundler", path=path)
    if found and program.exists() and program.samefile(found):
        return None
    return shlex.quote(str(program))


def by_root(command: str) -> str:
    """Return a command as this user runs it with root's rights: root's hosts needn't have ``sudo``."""
    return command if os.geteuid() == 0 else f"sudo {command}"
