"""Waiting until the server answers: ``/health`` 200, or its end, or the end of patience."""

from __future__ import annotations

import http.client
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bundler.errors import ServeError
from bundler.serve.failures import ending, explain, telling
from bundler.serve.progress_log import LogTail, Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

POLL = 0.2
HEALTH_SECONDS = 25.0
"""How long one answer may take: a ready server generates a token before it answers, SGLang gives it 20 s."""
QUIET_SECONDS = 300.0
"""Seconds without a line in the log after which it is looked where the server's processes are."""
DEFAULT_TIMEOUT = 3600.0
"""Seconds until a server that says nothing new is given up: 700 GB from a slow disk take half of it."""

STILL_BUSY = "give it longer with --timeout SECONDS, if its log goes on"

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Without proxies: the server is on this host."""


def health(url: str, timeout: float = HEALTH_SECONDS) -> str:
    """Ask ``/health`` once: ``ready``, ``starting`` (503), ``refused``, ``silent`` or ``status N``."""
    try:
        with _OPENER.open(f"{url}/health", timeout=timeout) as answer:
            return "ready" if answer.status == 200 else f"status {answer.status}"
    except urllib.error.HTTPError as problem:
        return "starting" if problem.code == 503 else f"status {problem.code}"
    except TimeoutError:
        return "silent"
    except (urllib.error.URLError, http.client.HTTPException, OSError) as problem:
        reason = getattr(problem, "reason", problem)
        return "silent" if isinstance(reason, TimeoutError) else "refused"


def _unsaid(line: str) -> None:
    """Show nothing."""


def _uncounted(stage: str, line: str) -> None:
    """Show nothing."""


@dataclass(frozen=True, slots=True)
class Voice:
    """What is shown to the user; none of these functions raises."""

    say: Callable[[str], None]
    """News, a line each."""
    echo: Callable[[str], None] = _unsaid
    """Lines of the server's log."""
    count: Callable[[str, str], None] = _uncounted
    """The stage that is waited for and its line as it is now; both empty where nothing is waited for."""


class HealthProbe:
    """Asks ``/health`` again and again in a thread of its own, so that a slow answer delays nothing else."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self.ready = threading.Event()
        self.last = "refused"
        threading.Thread(target=self._run, name="health", daemon=True).start()

    def _run(self) -> None:
        while not self._stop.is_set():
            self.last = health(self._url)
            if self.last == "ready":
                self.ready.set()
                return
            self._stop.wait(0.5)

    def stop(self) -> None:
        """Ask no more."""
        self._stop.set()


def wait_until_ready(
    url: str,
    log: Path,
    ended: Callable[[], int | None],
    *,
    timeout: float = DEFAULT_TIMEOUT,
    voice: Voice | None = None,
    watch: Callable[[], str | None] | None = None,
    look: Callable[[], list[str]] | None = None,
    tail: LogTail | None = None,
) -> Progress:
    """Wait until a server is ready.

    :param ended: returns the process's exit code once it has ended.
    :param timeout: seconds it may take in all.
    :param voice: what is shown meanwhile; nothing where not given.
    :param watch: says why waiting has become pointless, ``None`` as long as it hasn't.
    :param look: says where the server's processes are, when nothing is heard of them.
    :param tail: the log's reader, where the caller goes on reading.
    :returns: where the seconds went; its stage is ``ready``.
    :raises ServeError: it ended, or the time is up; with the cause and the last lines of its log.
    """
    progress, tail, probe = Progress(time.monotonic()), tail or LogTail(log), HealthProbe(url)
    voice = voice or Voice(say=_unsaid)
    heard = progress.started
    try:
        while True:
            now = time.monotonic()
            for line in tail.read():
                progress.see(line, now)
                voice.echo(line)
                heard = now
            if probe.ready.is_set():
                progress.began["ready"] = now
                progress.stage, progress.detail = "ready", ""
                return progress
            _give_up(progress, tail, log, ended(), watch, now, timeout, probe.last, voice, look)
            voice.count(progress.stage, progress.line(now))
            if look and now - heard > QUIET_SECONDS:
                voice.say(f"nothing in its log for {now - heard:.0f} s; its processes are here:")
                for line in look():
                    voice.say(f"  {line}")
                # The stacks are in the log now, and once is enough until it says something of its own.
                for line in tail.drain():
                    voice.echo(line)
                heard = float("inf")
            probe.ready.wait(POLL)
    finally:
        probe.stop()


def _give_up(
    progress: Progress,
    tail: LogTail,
    log: Path,
    code: int | None,
    watch: Callable[[], str | None] | None,
    now: float,
    timeout: float,
    answer: str,
    voice: Voice,
    look: Callable[[], list[str]] | None,
) -> None:
    reason = watch() if watch else None
    if code is not None:
        for line in tail.drain():
            progress.see(line, now)
            voice.echo(line)
        how = ending(code, list(progress.last))
        raise failure(f"the server ended while {progress.line(now)}: {how}", progress, log)
    if reason:
        raise failure(f"{reason} (here: {progress.line(now)})", progress, log)
    if now - progress.started > timeout:
        what = f"the server isn't ready after {timeout:.0f} s; it was {progress.line(now)}; /health: {answer}"
        raise failure(what, progress, log, STILL_BUSY, look() if look else ())


def failure(
    what: str, progress: Progress, log: Path, hint: str | None = None, places: Sequence[str] = ()
) -> ServeError:
    """Return the error for a server that failed, with the known cause where its log shows one.

    :param places: where its processes are, where it hangs.
    """
    lines = list(progress.last)
    known = explain([*lines, *places])
    findings = [*telling(lines), *places]
    if known:
        findings.append(f"cause: {known.cause}")
        hint = known.fix
    return ServeError(what, where=log, hint=hint or "read its log: bundler logs", findings=findings)
