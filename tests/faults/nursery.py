"""A process that has bundler imported and forks for each run: hundreds of real kills cost seconds.

As a program it reads one job a line, and answers with one line.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from bundler.common.durable import LIBC
from bundler.install import installer
from tests.faults.disk import Fault, FaultyDisk
from tests.support.forking import Forking

COMMANDS = {"pack": "tests.faults.commands", "fetch": "tests.faults.commands"}
PRELOADED = ("tests.faults.commands", "bundler.cli.unpack", "bundler.cli.install", "bundler.work.unpack")
PR_SET_CHILD_SUBREAPER = 36
"""Of ``prctl``, in ``linux/prctl.h``."""
LONGEST = 60.0
"""Seconds after which a run counts as hung."""


@dataclass(frozen=True)
class Job:
    """One run of a command."""

    words: tuple[str, ...]
    root: str
    """What it writes to."""
    source: str
    """What it reads from."""
    fault: Fault
    boot: int
    """Which start of the machine it runs in: a power cut ends one."""
    notes: str
    """A folder for its output and the state of the disk."""


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    code: int
    """Exit code; minus the signal's number where one ended it."""
    said: str
    kinds: tuple[str, ...]
    """The calls that were counted; none are known where it was killed."""
    seconds: float


class Nursery(Forking):
    """The process, from outside."""

    def __init__(self) -> None:
        """Start it."""
        super().__init__("tests.faults.nursery")

    def run(self, job: Job) -> Ended:
        """Run a command to its end, whatever that is."""
        answer = self.do(asdict(job))
        notes = Path(job.notes)
        kinds = notes / "kinds"
        known = tuple(json.loads(kinds.read_text())) if kinds.exists() else ()
        said = (notes / "said").read_text(errors="replace")
        return Ended(answer["code"], said, known, answer["seconds"])


def _child(job: dict[str, Any], fault: Fault, notes: Path) -> None:
    from bundler.cli.main import run

    said = os.open(notes / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for number in (1, 2):
        os.dup2(said, number)
    code: Any = 99
    disk = _prepare(job, fault)
    try:
        run(job["words"])
    except SystemExit as ending:
        code = ending.code or 0
    except BaseException:
        traceback.print_exc()
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    for thread in threading.enumerate():
        if thread.ident and thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    signal.setitimer(signal.ITIMER_REAL, 0)
    disk.fault = Fault()
    disk.finish()
    (notes / "kinds.new").write_text(json.dumps(disk.kinds))
    (notes / "kinds.new").rename(notes / "kinds")
    os._exit(code if isinstance(code, int) else 1)


def _prepare(job: dict[str, Any], fault: Fault) -> FaultyDisk:
    if fault.kind == "EINTR":
        # Whatever waits in the kernel is woken a thousand times a second.
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    installer.boot_id = lambda: f"boot {job['boot']}"
    return FaultyDisk(Path(job["root"]), Path(job["source"]), fault, Path(job["notes"]) / "crash")


def _serve() -> None:
    import importlib

    from bundler.archive import batches
    from bundler.cli import main

    # What a killed run leaves behind becomes this process's to end.
    LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1)
    batches.BATCH_BYTES = 60_000
    main.MODULES.update(COMMANDS)
    for name in PRELOADED:
        importlib.import_module(name)
    for line in sys.stdin:
        job = json.loads(line)
        fault, notes = Fault(**job["fault"]), Path(job["notes"])
        for name in ("crash", "kinds", "said"):
            (notes / name).unlink(missing_ok=True)
        start = time.monotonic()
        pid = os.fork()
        if not pid:
            os.setpgid(0, 0)
            _child(job, fault, notes)
        code = _wait(pid, fault)
        _bury()
        print(json.dumps({"code": code, "seconds": time.monotonic() - start}), flush=True)


def _bury() -> None:
    """End what a killed run had started: it would write on while the next one runs or is looked at."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


def _wait(pid: int, fault: Fault) -> int:
    limit = time.monotonic() + (fault.seconds if fault.kind == "clock" else LONGEST)
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= limit:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return -signal.SIGKILL if fault.kind == "clock" else 98
        time.sleep(0.001)


if __name__ == "__main__":
    _serve()
