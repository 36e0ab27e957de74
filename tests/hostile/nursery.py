"""A process that has bundler imported and forks for each run, so that hundreds of real commands cost seconds.

As a program it reads one job a line, and answers with one line. A run that hangs is killed; one that asks for
more memory than any sound one needs gets none.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.forking import Forking

if TYPE_CHECKING:
    from pathlib import Path

PRELOADED = ("inspect", "verify", "unpack", "repair")
LONGEST = 30.0
"""Seconds after which a run counts as hung."""
ADDRESSES = 6 * 2**30
"""Bytes of address space that a run may have; threads' stacks and arenas take most of it."""
HUNG = 98


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    code: int
    """Exit code; minus the signal's number where one ended it."""
    said: str
    seconds: float
    peak: int
    """KiB of memory that it held at most."""

    @property
    def defect(self) -> bool:
        """Whether it ended in a way that no user can do anything with."""
        words = ("Traceback", "defect of bundler", "error: unexpected", "MemoryError")
        return self.code in (1, 99) or self.code < 0 or any(word in self.said for word in words)


class Nursery(Forking):
    """The process, from outside."""

    def __init__(self) -> None:
        """Start it."""
        super().__init__("tests.hostile.nursery")

    def run(self, *words: object, cwd: Path, files: int = 0) -> Ended:
        """Run a command to its end, whatever that is.

        :param files: how many it may have open at once; 0: as many as this process.
        """
        said = cwd / "said"
        job = {"words": list(map(str, words)), "cwd": str(cwd), "said": str(said), "files": files}
        answer = self.do(job)
        text = said.read_bytes().decode(errors="surrogateescape")
        said.unlink()
        return Ended(answer["code"], text, answer["seconds"], answer["peak"])


def _child(words: list[str], cwd: str, said: str, files: int) -> None:
    from bundler.cli.main import run

    os.chdir(cwd)
    out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for number in (1, 2):
        os.dup2(out, number)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    if files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    code = 99
    try:
        run(words)
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else 0
    finally:
        sys.stdout.flush()
        os._exit(code)


def _serve() -> None:
    import importlib

    from bundler.cli.main import MODULES

    for name in PRELOADED:
        importlib.import_module(MODULES[name])
    for name in ("bundler.archive.unpack", "bundler.archive.verify", "bundler.work.unpack"):
        importlib.import_module(name)
    for line in sys.stdin:
        job = json.loads(line)
        start = time.monotonic()
        pid = os.fork()
        if not pid:
            os.setpgid(0, 0)
            _child(**job)
        code, peak = _wait(pid, start + LONGEST)
        print(json.dumps({"code": code, "seconds": time.monotonic() - start, "peak": peak}), flush=True)


def _wait(pid: int, limit: float) -> tuple[int, int]:
    while True:
        ended, status, used = os.wait4(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), used.ru_maxrss
        if time.monotonic() >= limit:
            os.killpg(pid, signal.SIGKILL)
            os.wait4(pid, 0)
            return HUNG, 0
        time.sleep(0.002)


if __name__ == "__main__":
    _serve()
