"""Where a server's processes are: their Python stacks, taken by py-spy, which SGLang brings."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

import psutil

from bundler.common.ask import ask
from bundler.serve.process_tree import RANK_TITLE, find_tree

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bundler.serve.server_record import ServerState

DUMP_SECONDS = 20.0
"""How long one process's stacks may take."""
TOP_FRAMES = 4
"""Frames of a process that are shown, the innermost first."""

FRAME = re.compile(r"\s+(\S.* \(\S+:\d+\))$")


def look_into(state: ServerState) -> list[str]:
    """Write the stacks of a server's processes into its log, and return where each is, a line each.

    Never raises: it is asked when something is wrong already.

    :returns: of each kind of place the processes there and their innermost frames; or why that isn't known.
    """
    program = find_py_spy(state.argv[0])
    if program is None:
        return ["where its processes are isn't known: there is no py-spy in the environment"]
    try:
        told = {_title(process): _dump(program, process.pid) for process in _ranks(state)}
        with open(state.log, "a", encoding="utf-8") as log:  # noqa: PTH123
            log.write("\nbundler: the stacks of the server's processes\n" + "\n".join(told.values()) + "\n")
    except (OSError, psutil.Error) as problem:
        return [f"where its processes are isn't known: {problem}"]
    return places(told)


def find_py_spy(python: str) -> str | None:
    """Return the py-spy beside an interpreter, else the one on PATH."""
    return shutil.which("py-spy", path=python.rpartition("/")[0]) or shutil.which("py-spy")


def places(told: Mapping[str, str]) -> list[str]:
    """Return what each process's dump shows, those at the same place in one line.

    :param told: py-spy's words of each process, by the process's name.
    """
    at: dict[str, list[str]] = {}
    for name, dump in told.items():
        at.setdefault(" < ".join(main_frames(dump)) or _last(dump.splitlines()), []).append(name)
    return [f"{', '.join(names)}: {place}" for place, names in at.items()]


def main_frames(dump: str) -> list[str]:
    """Return the innermost frames of the main thread in py-spy's words, of the first where none is named."""
    threads: list[list[str]] = []
    main = 0
    for line in dump.splitlines():
        if line.startswith("Thread "):
            main = len(threads) if '"MainThread"' in line else main
            threads.append([])
        elif threads and (found := FRAME.match(line)):
            threads[-1].append(found[1])
    return threads[main][:TOP_FRAMES] if threads else []


def _ranks(state: ServerState) -> list[psutil.Process]:
    """Return the ranks; where none has its title yet, all of the server's processes."""
    found = find_tree(state)
    return [process for process in found if _title(process).startswith(RANK_TITLE)] or found


def _title(process: psutil.Process) -> str:
    words = " ".join(process.cmdline()).split()
    named = bool(words) and words[0].startswith(RANK_TITLE)
    return f"{words[0] if named else process.name()} (pid {process.pid})"


def _dump(program: str, pid: int) -> str:
    try:
        done = ask([program, "dump", "--pid", str(pid)], seconds=DUMP_SECONDS)
    except TimeoutError as problem:
        return f"py-spy: {problem}"
    return done.out if done.code == 0 else done.err.strip() or f"py-spy: exit {done.code}"


def _last(lines: Iterable[str]) -> str:
    return next((line.strip() for line in reversed(list(lines)) if line.strip()), "unknown")
