"""One server from its start to its end: waited for, watched, ended as a whole."""

from __future__ import annotations

import contextlib
import signal
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from bundler.common.units import size_text
from bundler.errors import ServeError
from bundler.serve.failures import ending, explain, telling
from bundler.serve.nodes import open_link
from bundler.serve.process import GRACE, kill, stop, wait_for_gpus
from bundler.serve.process_tree import find_ranks, find_tree
from bundler.serve.progress_log import LogTail
from bundler.serve.readahead import ReadAhead
from bundler.serve.readiness import DEFAULT_TIMEOUT, STILL_BUSY, Voice, failure, wait_until_ready
from bundler.serve.server_record import write_state
from bundler.serve.stacks import look_into
from bundler.serve.warmup import STAGE, WarmUpRun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from types import FrameType

    from bundler.serve.launch import ServerLaunch
    from bundler.serve.nodes import NodeLink
    from bundler.serve.process import Server
    from bundler.serve.progress_log import Progress
    from bundler.serve.server_record import ServerState
    from bundler.serve.warmup import WarmUp

    Handler = Callable[[int, FrameType | None], object] | signal.Handlers

POLL = 0.2
END_SECONDS = 30.0
"""How long a server that answers no more may take to end, so that its log tells why."""
RANK_INTERVAL = 1.0
"""Seconds between two looks at the ranks of a server that serves."""


class TerminatedError(BaseException):
    """SIGTERM or SIGHUP told this command to end."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


@dataclass(frozen=True, slots=True)
class WaitLimits:
    """How a start is waited for."""

    timeout: float = DEFAULT_TIMEOUT
    grace: float = GRACE
    read_ahead: bool = True
    warm_up: WarmUp | None = None
    """What the server is asked before it counts as ready; ``None``: nothing."""


def run_detached(server: Server, launch: ServerLaunch, patience: WaitLimits, voice: Voice) -> Progress:
    """Wait until a detached server is ready, and leave it running.

    Whatever ends the wait before, Ctrl-C too, ends the server with all its processes.

    :raises ServeError: it didn't become ready.
    """
    with _signals(), _ended_on_failure(server, patience, voice):
        link = open_link(launch)
        try:
            progress = _become_ready(server, launch, link, patience, voice)
        except BaseException as problem:
            _close_failed(link, problem)
            raise
        if link:
            link.close(bye=True)
        return progress


def run_foreground(server: Server, launch: ServerLaunch, patience: WaitLimits, voice: Voice) -> None:
    """Run a server until it ends or this command is told to end; SIGTERM ends it orderly and returns.

    :raises ServeError: it didn't become ready, or ended by itself.
    :raises KeyboardInterrupt: Ctrl-C, after the server was ended.
    """
    link = open_link(launch)
    with _signals():
        try:
            with _ended_on_failure(server, patience, voice):
                tail = LogTail(server.folder / f"{server.state.name}.log")
                _become_ready(server, launch, link, patience, voice, tail)
                _watch(server, link, tail, voice)
        except TerminatedError:
            _close_failed(link, "it was told to stop")
            voice.say("stopped")
        except KeyboardInterrupt:
            _close_failed(link, "it was told to stop")
            voice.say("stopped")
            raise
        except BaseException as problem:
            _close_failed(link, problem)
            raise


@contextlib.contextmanager
def ended_afterwards(server: Server, patience: WaitLimits, voice: Voice) -> Iterator[None]:
    """End the server when the block is left, whichever way."""
    with _signals():
        try:
            yield
        finally:
            _end(server, patience, voice)
            voice.say("stopped")


def _become_ready(
    server: Server,
    launch: ServerLaunch,
    link: NodeLink | None,
    patience: WaitLimits,
    voice: Voice,
    tail: LogTail | None = None,
) -> Progress:
    """Wait for this node's server, on several nodes for the first one's too, and say where the time went."""
    log = server.folder / f"{server.state.name}.log"
    tail = tail or LogTail(log)
    ahead = ReadAhead(launch.weights) if patience.read_ahead else None
    try:
        progress = wait_until_ready(
            launch.url,
            log,
            server.process.poll,
            timeout=patience.timeout,
            voice=voice,
            watch=link.reason if link else None,
            look=partial(look_into, server.state),
            tail=tail,
        )
        if ahead:
            ahead.stop()
        if patience.warm_up is not None and launch.node_rank == 0:
            _warm_up(server, patience.warm_up, link, progress, tail, patience, voice)
        if link:
            _wait_for_the_whole(server, link, progress, log, patience, voice)
    finally:
        voice.count("", "")
        if ahead:
            ahead.stop()
    seconds = time.monotonic() - progress.started
    write_state(server.folder, _ready_state(server, seconds))
    for line in where_the_seconds_went(progress, seconds, ahead):
        voice.say(line)
    return progress


def _warm_up(
    server: Server,
    wishes: WarmUp,
    link: NodeLink | None,
    progress: Progress,
    tail: LogTail,
    patience: WaitLimits,
    voice: Voice,
) -> None:
    """Ask the server its first chats; one that it refuses is told, one that it never answers is a failure."""
    log = server.folder / f"{server.state.name}.log"
    progress.enter(STAGE, time.monotonic())
    run = WarmUpRun(server.state.url, server.state.served_name, wishes, patience.timeout)
    went = 0.0
    while not run.done.wait(POLL) or run.broken:
        now = time.monotonic()
        progress.detail = run.doing
        code, reason = server.process.poll(), link.reason() if link else None
        if run.broken:
            went = went or now
            time.sleep(POLL)
        for line in tail.read() if code is None else tail.drain():
            progress.see(line, now)
            voice.echo(line)
        voice.count(STAGE, progress.line(now))
        if code is not None:
            how = ending(code, list(progress.last))
            raise failure(f"the server ended while {progress.line(now)}: {how}", progress, log)
        if reason or (went and now - went > END_SECONDS):
            raise failure(f"{reason or run.broken} (here: {progress.line(now)})", progress, log)
        if now - progress.started > patience.timeout:
            what = f"the server isn't ready after {patience.timeout:.0f} s; it was {progress.line(now)}"
            raise failure(what, progress, log, STILL_BUSY, look_into(server.state))
    progress.enter("ready", time.monotonic())
    for problem in run.problems:
        voice.say(f"not answered while warming up: {problem}")
    for name, taken in run.seconds:
        voice.say(f"warmed up by {name}: {taken:.1f} s")


def _ready_state(server: Server, seconds: float) -> ServerState:
    """Return the state of a server that is ready, with the ranks that it has."""
    ranks = {str(pid): told for pid, told in find_ranks(server.state.pid).items()}
    return msgspec.structs.replace(server.state, ready_after=round(seconds, 1), ranks=ranks)


def where_the_seconds_went(progress: Progress, seconds: float, ahead: ReadAhead | None) -> list[str]:
    """Return the lines that account for a start."""
    lines = [f"ready after {seconds:.0f} s"]
    lines += [f"  {taken:6.1f} s  {stage}" for stage, taken in progress.seconds(progress.began["ready"])]
    if ahead and ahead.on:
        lines.append(f"  weights read ahead: {size_text(ahead.read)} of {size_text(ahead.total)}")
    elif ahead and ahead.total:
        lines.append("  weights not read ahead: they don't fit into free memory")
    return lines


def _wait_for_the_whole(
    server: Server, link: NodeLink, progress: Progress, log: Path, patience: WaitLimits, voice: Voice
) -> None:
    """On a node that isn't the first: wait until the first one's server answers."""
    link.ready()
    if link.rank == 0 or not link.joined:
        if link.problem:
            voice.say(f"this node alone is watched: no link to the others ({link.problem})")
        return
    voice.say("this node is ready; waiting for the first one")
    while not link.whole_ready.wait(POLL):
        code, reason = server.process.poll(), link.reason()
        if code is not None:
            raise failure(f"the server ended while the first node started: {ending(code)}", progress, log)
        if reason:
            raise failure(reason, progress, log)
        if time.monotonic() - progress.started > patience.timeout:
            raise failure(f"the first node isn't ready after {patience.timeout:.0f} s", progress, log)


def _watch(server: Server, link: NodeLink | None, tail: LogTail, voice: Voice) -> None:
    """Show the log until the server ends, and end what it left.

    :raises ServeError: it ended, lost a rank, or another node's did.
    """
    recent: list[str] = []
    state, looked = _ready_state(server, 0), time.monotonic()
    while (code := server.process.poll()) is None:
        recent = _echo(tail.read(), recent, voice)
        if link and (reason := link.reason()):
            raise ServeError(reason, where=server.state.log, hint="start all nodes again")
        if time.monotonic() - looked > RANK_INTERVAL:
            looked = time.monotonic()
            if lost := state.lost:
                raise ServeError(f"the server lost {', '.join(lost)}", where=server.state.log)
        time.sleep(POLL)
    kill(server)
    recent = _echo(tail.drain(), recent, voice)
    known = explain(recent)
    raise ServeError(
        f"the server ended: {ending(code, recent)}",
        where=server.state.log,
        findings=[f"cause: {known.cause}"] if known else telling(recent),
        hint=known.fix if known else "read its log: bundler logs",
    )


def _echo(lines: list[str], recent: list[str], voice: Voice) -> list[str]:
    for line in lines:
        voice.echo(line)
    return (recent + [line for line in lines if line.strip()])[-200:]


@contextlib.contextmanager
def _ended_on_failure(server: Server, patience: WaitLimits, voice: Voice) -> Iterator[None]:
    """End the server if the block is left by any exception."""
    try:
        yield
    except ServeError:
        _end(server, patience, voice, at_once=True)
        raise
    except BaseException:
        _end(server, patience, voice)
        raise


def _end(server: Server, patience: WaitLimits, voice: Voice, *, at_once: bool = False) -> None:
    """End the server in order, or at once, as a second Ctrl-C has it, and forget it."""
    left = len(find_tree(server.state.pid, server.state.start, server.state.marker))
    if left:
        voice.say(f"ending the server: {left} process{'' if left == 1 else 'es'}")
    try:
        lines = None if at_once else stop(server.folder, server.state, patience.grace)
    except (KeyboardInterrupt, TerminatedError):
        lines = None
    if lines is None:
        with _unheeded():
            kill(server)
        lines = wait_for_gpus(server.state.gpu_used)
    for line in lines:
        voice.say(line)


def _close_failed(link: NodeLink | None, problem: BaseException | str) -> None:
    if link:
        link.failed(str(getattr(problem, "what", problem)) or type(problem).__name__)
        link.close(bye=False)


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into an exception, so that they end the server as Ctrl-C does.

    :raises SystemExit: one came and nothing in the block took it; the exit code is a shell's for the signal.
    """

    def told(number: int, frame: FrameType | None) -> None:
        raise TerminatedError(number)

    # One that is ignored, as nohup has it, stays ignored.
    wanted = [one for one in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(one) != signal.SIG_IGN]
    with _handled(wanted, told):
        try:
            yield
        except TerminatedError as end:
            raise SystemExit(128 + end.number) from end


@contextlib.contextmanager
def _unheeded() -> Iterator[None]:
    """Let no signal break off what the block does: a closed terminal sends more than one."""
    with _handled((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), signal.SIG_IGN):
        yield


@contextlib.contextmanager
def _handled(numbers: Sequence[signal.Signals], handler: Handler) -> Iterator[None]:
    """Handle signals in one way within the block."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
