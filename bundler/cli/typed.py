"""Lines to type as they work here: by the bundler that was called, on the folder that was named."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from bundler.cli.summaries import SUMMARIES

if TYPE_CHECKING:
    from collections.abc import Mapping

_CALL = re.compile(rf"(?<![\w/.-])bundler ({'|'.join(SUMMARIES)})\b(?! -C)")
"""``bundler COMMAND``, without a path before it, and not with a folder of its own."""
ON_WORKSPACE = ("plan", "fetch", "pack", "rehearse", "models", "env", "clean")
"""Commands whose ``-C`` is the workspace."""
ON_INSTALLATION = (
    *("history", "rollback", "remove", "doctor", "check", "serve", "status", "logs", "stop", "smoke"),
    "systemd",
)
"""Commands whose ``-C`` is the installation."""


def typed(text: str, folders: Mapping[str, str]) -> str:
    """Return a text whose calls of bundler work here: an installation's own is seldom on ``PATH``.

    :param folders: of commands the folder that they are to work on, as it was named for this one.
    """
    from bundler.installation import OWN_VARIABLE

    program = _program(os.environ.get(OWN_VARIABLE), os.environ.get("PATH"))

    def call(found: re.Match[str]) -> str:
        folder = folders.get(found[1])
        return f"{program} {found[1]}" + (f" -C {shlex.quote(folder)}" if folder else "")

    return _CALL.sub(call, text)


def folders_of(named: Mapping[str, object]) -> dict[str, str]:
    """Return the folder that a command was given with ``-C``, for each command that takes one of its kind.

    :param named: the values of the command's parameters.
    """
    kinds = {"workspace": ON_WORKSPACE, "start": ON_INSTALLATION, "begin": ON_INSTALLATION}
    places = {name: place for name in kinds if isinstance(place := named.get(name), Path) and place != Path()}
    return {command: str(place) for name, place in places.items() for command in kinds[name]}


@cache
def _program(own: str | None, path: str | None) -> str:
    """Return how this bundler is called: an installation's own by its path, where ``bundler`` is another."""
    program = Path(own) / "bin" / "bundler" if own else None
    found = shutil.which("bundler", path=path) if program else None
    if program is None or (found and program.exists() and program.samefile(found)):
        return "bundler"
    return shlex.quote(str(program))


def by_root(command: str) -> str:
    """Return a command as this user runs it with root's rights: root's hosts needn't have ``sudo``."""
    return command if os.geteuid() == 0 else f"sudo {command}"
