"""A server's processes: finding all of them, strays included, and ending them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import psutil

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MARKER = "BUNDLER_SERVER"
"""The variable that every process of a server inherits."""
RANK_TITLE = "sglang::"
POLL = 0.1
FOLLOW_SECONDS = 2.0
"""How long the rest may take to end by itself once the first process has."""
KILL_SECONDS = 10.0
"""How long killed processes may take to go: the driver first gives back their GPU memory."""


def started_at(pid: int) -> str | None:
    """Return when a process began, in the kernel's clock ticks since boot, with the boot's id.

    ``None`` for a process that isn't there or has ended and waits to be reaped.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The program's name, in parentheses, may hold spaces and parentheses itself.
    columns = text.rpartition(")")[2].split()
    return None if columns[0] in "ZX" else f"{columns[19]}@{_boot()}"


class FirstProcess(msgspec.Struct, frozen=True, kw_only=True):
    """The process that was started, from which all others of a server come."""

    pid: int
    start: str
    """When the process began, as the kernel counts it: tells it from another that got the same pid."""
    marker: str
    """A word in the environment of each of its processes, by which strays are found."""

    @property
    def running(self) -> bool:
        """Whether it is still there."""
        return started_at(self.pid) == self.start


def find_tree(first: FirstProcess) -> list[psutil.Process]:
    """Return every process of a server that is left.

    They are its descendants, the members of its session, and whatever carries its marker. An orphan that
    began a session of its own is found by the marker; one that overwrote its environment, as setproctitle
    does, by the session.
    """
    # As long as a session has members its number is given to no other process; a leader that began at another
    # time means that it was given anew.
    of_this_boot = first.start.partition("@")[2] == _boot()
    own_session = of_this_boot and started_at(first.pid) in (None, first.start)
    found: dict[int, psutil.Process] = {}
    if first.running:
        with contextlib.suppress(psutil.Error):
            root = psutil.Process(first.pid)
            found = {one.pid: one for one in (root, *root.children(recursive=True))}
    wanted = f"{MARKER}={first.marker}".encode()
    for process in psutil.process_iter():
        if process.pid in found:
            continue
        if _is_marked(process.pid, wanted) or (own_session and _session(process.pid) == first.pid):
            found[process.pid] = process
    found.pop(os.getpid(), None)
    return [process for process in found.values() if _lives(process)]


def find_ranks(pid: int) -> dict[int, tuple[str, str]]:
    """Return a server's named processes, its ranks and its detokenizer: pid to start and name.

    SGLang gives them titles. A server outlives the sudden death of one, and never answers again.
    """
    ranks: dict[int, tuple[str, str]] = {}
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                title, start = " ".join(process.cmdline()).strip(), started_at(process.pid)
                if title.startswith(RANK_TITLE) and start is not None:
                    ranks[process.pid] = (start, title)
    return ranks


def end_tree(first: FirstProcess, grace: float) -> list[int]:
    """End a server: SIGTERM to its first process, after ``grace`` seconds SIGKILL to all that is left.

    :param grace: 0 kills at once.
    :returns: pids that are left even so; empty when nothing of the server is left.
    """
    deadline = time.monotonic() + grace
    if grace and first.running:
        _signal([psutil.Process(first.pid)], signal.SIGTERM)
        while first.running and time.monotonic() < deadline:
            _reap(first.pid)
            time.sleep(POLL)
    if grace and not first.running and (rest := find_tree(first)):
        # Its first process ended properly: its children are given the chance to follow.
        _signal(rest, signal.SIGTERM)
        _wait(rest, min(FOLLOW_SECONDS, deadline - time.monotonic()))
    # Again until no new one appears.
    deadline = time.monotonic() + KILL_SECONDS
    while rest := find_tree(first):
        _signal(rest, signal.SIGKILL)
        _wait(rest, 1.0)
        _reap(first.pid)
        if time.monotonic() > deadline:
            return [process.pid for process in find_tree(first)]
    return []


def _signal(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)


def _wait(processes: Sequence[psutil.Process], seconds: float) -> None:
    """Wait until processes are gone; one that nobody reaps, as in containers without an init, is."""
    deadline = time.monotonic() + seconds
    while any(_lives(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(POLL)


def _reap(pid: int) -> None:
    """Collect the process if it is this one's own child, so that it doesn't stay as a zombie."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _is_marked(pid: int, wanted: bytes) -> bool:
    try:
        return wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    except OSError:
        return ""
