"""One server from its start to its end: waited for, watched, ended as a whole."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bundler.common.units import size_text
from bundler.errors import ServeError
from bundler.serve.failures import diagnose, ending
from bundler.serve.nodes import open_link
from bundler.serve.process import GRACE, start, stop
from bundler.serve.process_tree import find_ranks, find_tree
from bundler.serve.progress_log import LogTail, Progress
from bundler.serve.readahead import ReadAhead
from bundler.serve.readiness import HealthProbe
from bundler.serve.server_record import write_state
from bundler.serve.signals import TerminatedError, held_signals, unheeded_signals

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator, Mapping

    from bundler.host.facts import HostFacts
    from bundler.serve.launch import ServerLaunch
    from bundler.serve.nodes import NodeLink
    from bundler.serve.server_record import ServerState

POLL = 0.2
RANK_INTERVAL = 1.0
"""Seconds between two looks at the ranks of a server that serves."""
STATUS_INTERVAL = 10.0
"""Seconds between two status lines of one stage."""
DEFAULT_TIMEOUT = 3600.0
"""Seconds until a server that says nothing new is given up: 700 GB from a slow disk take half of it."""


@dataclass(frozen=True, slots=True)
class WaitSettings:
    """How a start is waited for, and what is shown of it; neither function raises."""

    say: Callable[[str], None]
    """Shows status lines."""
    echo: Callable[[str], None] | None = None
    """Shows lines of the server's log."""
    timeout: float = DEFAULT_TIMEOUT
    """Seconds it may take in all."""
    read_ahead: bool = True


@contextlib.contextmanager
def supervised(
    launch: ServerLaunch, host: HostFacts, base: Mapping[str, str], settings: WaitSettings, *, detach: bool
) -> Iterator[Supervisor]:
    """Start a server and, if an exception or a signal ends the block, end it with all its processes.

    :param detach: whether it outlives this command; else being told to end is what ends it properly.
    :raises SystemExit: SIGTERM or SIGHUP came; with 0 where the server isn't detached, else a shell's code.
    :raises KeyboardInterrupt: Ctrl-C, after the server was ended.
    """
    try:
        with held_signals() as release:
            server = Supervisor(launch, settings, *start(launch, host, base, detach=detach))
            try:
                release()
                yield server
            except BaseException as problem:
                server.end_failed(problem)
                raise
            server.leave()
    except TerminatedError as end:
        raise SystemExit(128 + end.number if detach else 0) from end


class Supervisor:
    """What waits for a server that was started, watches and ends it."""

    def __init__(
        self,
        launch: ServerLaunch,
        settings: WaitSettings,
        state: ServerState,
        process: subprocess.Popen[bytes],
    ) -> None:
        self.state, self.launch = state, launch
        self._process, self._settings = process, settings
        self._link: NodeLink | None = None
        self._tail = LogTail(Path(state.log))
        self._progress = Progress(time.monotonic())
        self._serves = False

    def become_ready(self) -> None:
        """Wait for this node's server, on several nodes for the first one's too; say where the time went.

        :raises ServeError: it ended, or the time is up; with the cause and the last lines of its log.
        """
        self._link = open_link(self.launch)
        ahead = ReadAhead(self.launch.weights) if self._settings.read_ahead else None
        try:
            self._wait_for_health()
            if self._link:
                self._wait_for_the_whole(self._link)
        finally:
            if ahead:
                ahead.stop()
        seconds = time.monotonic() - self._progress.started
        ranks = {str(pid): told for pid, told in find_ranks(self.state.pid).items()}
        self.state = msgspec.structs.replace(self.state, ready_after=round(seconds, 1), ranks=ranks)
        write_state(self.launch.folder, self.state)
        self._serves = True
        for line in where_the_seconds_went(self._progress, seconds, ahead):
            self._settings.say(line)

    def watch(self) -> None:
        """Show the log until the server ends.

        :raises ServeError: it ended by itself, lost a rank, or another node failed.
        """
        looked = time.monotonic()
        while True:
            self._look(doing="", hint="start all nodes again")
            if time.monotonic() - looked > RANK_INTERVAL:
                looked = time.monotonic()
                if lost := self.state.lost:
                    raise self._failure(f"the server lost {', '.join(lost)}")
            time.sleep(POLL)

    def end(self, *, at_once: bool = False) -> None:
        """End the server in order, or at once, as a second signal has it, and forget it."""
        say, grace = self._settings.say, 0.0 if at_once else GRACE
        try:
            if left := len(find_tree(self.state)):
                say(f"ending the server: {left} process{'' if left == 1 else 'es'}")
            lines = stop(self.launch.folder, self.state, grace)
        except (KeyboardInterrupt, TerminatedError):
            with unheeded_signals():
                lines = stop(self.launch.folder, self.state, 0)
        for line in [*lines, "stopped"]:
            say(line)

    def end_failed(self, problem: BaseException) -> None:
        """End the server because of an exception, and tell the other nodes."""
        try:
            self.end(at_once=isinstance(problem, ServeError) and not self._serves)
        except ServeError as left:
            if not isinstance(problem, ServeError):
                raise
            # What is raised already says more.
            self._settings.say(left.what)
        finally:
            if self._link:
                told = not isinstance(problem, (KeyboardInterrupt, TerminatedError))
                cause = str(getattr(problem, "what", problem)) or type(problem).__name__
                self._link.failed(cause if told else "it was told to stop")
                self._link.close(bye=False)

    def leave(self) -> None:
        """Leave the server running."""
        if self._link:
            self._link.close(bye=True)

    def _wait_for_health(self) -> None:
        say, progress = self._settings.say, self._progress
        shown, shown_at = "", 0.0
        probe = HealthProbe(self.launch.url)
        try:
            while not probe.ready.wait(POLL):
                self._look()
                now = time.monotonic()
                self._in_time(
                    f"the server isn't ready after {self._settings.timeout:.0f} s; "
                    f"it was {progress.line(now)}; /health: {probe.last}",
                    "give it longer with --timeout SECONDS, if its log goes on",
                )
                if progress.stage != shown or now - shown_at > STATUS_INTERVAL:
                    say(progress.line(now))
                    shown, shown_at = progress.stage, now
        finally:
            probe.stop()
        self._take_in(self._tail.read())
        progress.began["ready"] = time.monotonic()
        progress.stage, progress.detail = "ready", ""

    def _wait_for_the_whole(self, link: NodeLink) -> None:
        """On a node that isn't the first: wait until the first one's server answers."""
        link.ready()
        if link.rank == 0 or not link.joined:
            if link.problem:
                self._settings.say(f"this node alone is watched: no link to the others ({link.problem})")
            return
        self._settings.say("this node is ready; waiting for the first one")
        while not link.whole_ready.wait(POLL):
            self._look(doing=" while the first node started")
            self._in_time(f"the first node isn't ready after {self._settings.timeout:.0f} s")

    def _look(self, doing: str | None = None, hint: str | None = None) -> None:
        """Take in the log, and see whether there is still something to wait for.

        :param doing: what the server was doing where it has ended; its stage where not given.
        :param hint: what to do where another node failed.
        """
        # Asked before the log is read: what it wrote until then is whole.
        code, reason = self._process.poll(), self._link.reason() if self._link else None
        self._take_in(self._tail.read() if code is None else self._tail.drain())
        line = self._progress.line(time.monotonic())
        if code is not None:
            doing = f" while {line}" if doing is None else doing
            raise self._failure(f"the server ended{doing}: {ending(code)}")
        if reason:
            raise self._failure(f"{reason} (here: {line})" if doing is None else reason, hint)

    def _take_in(self, lines: list[str]) -> None:
        for line in lines:
            self._progress.see(line, time.monotonic())
            if self._settings.echo:
                self._settings.echo(line)

    def _in_time(self, what: str, hint: str | None = None) -> None:
        if time.monotonic() - self._progress.started > self._settings.timeout:
            raise self._failure(what, hint)

    def _failure(self, what: str, hint: str | None = None) -> ServeError:
        """Return the error for a server that failed, with the known cause where its log shows one."""
        findings, fix = diagnose(list(self._progress.last))
        hint = fix or hint or "read its log: bundler logs"
        return ServeError(what, where=self.state.log, hint=hint, findings=findings)


def where_the_seconds_went(progress: Progress, seconds: float, ahead: ReadAhead | None) -> list[str]:
    """Return the lines that account for a start."""
    lines = [f"ready after {seconds:.0f} s"]
    lines += [f"  {taken:6.1f} s  {stage}" for stage, taken in progress.seconds(progress.began["ready"])]
    if ahead and ahead.on:
        lines.append(f"  weights read ahead: {size_text(ahead.read)} of {size_text(ahead.total)}")
    elif ahead and ahead.total:
        lines.append("  weights not read ahead: they don't fit into free memory")
    return lines
