"""One server from its start to its end: waited for, watched, ended as a whole."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bundler.common.units import duration_text, size_text
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
from bundler.serve.stacks import look_into
from bundler.serve.warmup import STAGE, WarmUpRun

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from bundler.host.facts import HostFacts
    from bundler.serve.launch import ServerLaunch
    from bundler.serve.nodes import NodeLink
    from bundler.serve.server_record import ServerState
    from bundler.serve.warmup import WarmUp

POLL = 0.2
RANK_INTERVAL = 1.0
"""Seconds between two looks at the ranks of a server that serves."""
QUIET_SECONDS = 300.0
"""Seconds without a line in the log after which it is looked where the server's processes are."""
END_SECONDS = 30.0
"""How long a server that answers no more may take to end, so that its log tells why."""
STILL_BUSY = "give it longer with --timeout SECONDS, if its log goes on"
DEFAULT_TIMEOUT = 3600.0
"""Seconds until a server that says nothing new is given up: 700 GB from a slow disk take half of it."""


def _unsaid(line: str) -> None:
    """Show nothing."""


def _uncounted(stage: str, line: str) -> None:
    """Show nothing."""


@dataclass(frozen=True, slots=True)
class WaitSettings:
    """How a start is waited for, and what is shown of it; none of the functions raises."""

    say: Callable[[str], None]
    """Shows status lines."""
    echo: Callable[[str], None] = _unsaid
    """Shows lines of the server's log."""
    timeout: float = DEFAULT_TIMEOUT
    """Seconds it may take in all."""
    read_ahead: bool = True
    count: Callable[[str, str], None] = _uncounted
    """Shows the stage that is waited for and its line as it is now; both empty where nothing is any more."""
    warm_up: WarmUp | None = None
    """What the server is asked before it counts as ready; ``None``: nothing."""


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
            warms_up = settings.warm_up is not None
            started = start(launch, host, base, detach=detach, warms_up=warms_up)
            server = Supervisor(launch, settings, *started)
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
        self._heard = self._progress.started
        self._serves = False

    def become_ready(self) -> None:
        """Wait for this node's server, on several nodes for the first one's too; say where the time went.

        :raises ServeError: it ended, or the time is up; with the cause and the last lines of its log.
        """
        self._link = open_link(self.launch)
        ahead = ReadAhead(self.launch.weights) if self._settings.read_ahead else None
        try:
            self._wait_for_health()
            if ahead:
                ahead.stop()
            if self._settings.warm_up is not None and self.state.node_rank == 0:
                self._warm_up(self._settings.warm_up)
            if self._link:
                self._wait_for_the_whole(self._link)
        finally:
            self._settings.count("", "")
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
        progress = self._progress
        probe = HealthProbe(self.launch.url)
        try:
            while not probe.ready.wait(POLL):
                self._look()
                now = time.monotonic()
                self._in_time(
                    f"the server isn't ready after {duration_text(self._settings.timeout)}; "
                    f"it was {progress.line(now)}; /health: {probe.last}",
                    STILL_BUSY,
                )
                self._settings.count(progress.stage, progress.line(now))
                self._look_into_silence(now)
        finally:
            probe.stop()
        self._take_in(self._tail.read())
        progress.enter("ready", time.monotonic())

    def _look_into_silence(self, now: float) -> None:
        """Say where the server's processes are, once, when nothing was heard of them for long."""
        if now - self._heard < QUIET_SECONDS:
            return
        self._settings.say(
            f"nothing in its log for {duration_text(now - self._heard)}; its processes are here:"
        )
        for line in look_into(self.state):
            self._settings.say(f"  {line}")
        # What was written of it into the log is nothing that the server said.
        self._take_in(self._tail.drain())
        self._heard = float("inf")

    def _warm_up(self, wishes: WarmUp) -> None:
        """Ask the first chats; one that is refused is told, one that is never answered is a failure."""
        progress, timeout = self._progress, self._settings.timeout
        progress.enter(STAGE, time.monotonic())
        run = WarmUpRun(self.state.url, self.state.served_name, wishes, timeout)
        went = 0.0
        while not run.done.wait(POLL):
            progress.detail = run.doing
            self._look()
            line = progress.line(time.monotonic())
            self._settings.count(STAGE, line)
            self._in_time(f"the server isn't ready after {duration_text(timeout)}; it was {line}", STILL_BUSY)
            went = went or (time.monotonic() if run.broken else 0.0)
            if went and time.monotonic() - went > END_SECONDS:
                raise self._failure(f"{run.broken} (here: {line})")
        progress.enter("ready", time.monotonic())
        for problem in run.problems:
            self._settings.say(f"not answered while warming up: {problem}")
        for name, taken in run.seconds:
            self._settings.say(f"warmed up by {name}: {taken:.1f} s")

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
            self._in_time(f"the first node isn't ready after {duration_text(self._settings.timeout)}")

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
            raise self._failure(f"the server ended{doing}: {ending(code, list(self._progress.last))}")
        if reason:
            raise self._failure(f"{reason} (here: {line})" if doing is None else reason, hint)

    def _take_in(self, lines: list[str]) -> None:
        for line in lines:
            self._heard = time.monotonic()
            self._progress.see(line, self._heard)
            self._settings.echo(line)

    def _in_time(self, what: str, hint: str | None = None) -> None:
        if time.monotonic() - self._progress.started > self._settings.timeout:
            raise self._failure(what, hint, look_into(self.state))

    def _failure(self, what: str, hint: str | None = None, places: Sequence[str] = ()) -> ServeError:
        """Return the error for a server that failed, with the known cause where its log shows one.

        :param places: where its processes are, where it hangs.
        """
        findings, fix = diagnose(list(self._progress.last), places)
        hint = fix or hint or "read its log: bundler logs"
        return ServeError(what, where=self.state.log, hint=hint, findings=findings)


def where_the_seconds_went(progress: Progress, seconds: float, ahead: ReadAhead | None) -> list[str]:
    """Return the lines that account for a start."""
    lines = [f"ready after {duration_text(seconds)}"]
    lines += [f"  {taken:6.1f} s  {stage}" for stage, taken in progress.seconds(progress.began["ready"])]
    if ahead and ahead.on:
        lines.append(f"  weights read ahead: {size_text(ahead.read)} of {size_text(ahead.total)}")
    elif ahead and ahead.total:
        lines.append("  weights not read ahead: they don't fit into free memory")
    return lines
