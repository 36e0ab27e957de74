"""``bundler status``, ``logs``, ``stop``: the server that runs, and its end."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bundler.cli.command import command
from bundler.cli.output import MANNER, answer, named, say, show
from bundler.cli.serving import one_server_options
from bundler.common.units import duration_text
from bundler.errors import NotRunningError, ServeError, UsageError
from bundler.installation import find_installation
from bundler.serve.failures import diagnose
from bundler.serve.process import GRACE, stop
from bundler.serve.progress_log import LogTail, Progress
from bundler.serve.readiness import health
from bundler.serve.server_record import ServerState, choose, other_users, run_folder, servers

if TYPE_CHECKING:
    from collections.abc import Sequence

POLL = 0.3
KNOWN = ("ready", "warming up", "ended")
"""What a server does where its log need not be asked."""


@command("status")
@one_server_options
@click.option("--wait", type=float, metavar="SECONDS", help="Wait until it is ready.")
def status_command(begin: Path, port: int | None, node_rank: int | None, wait: float | None) -> None:
    """Say whether the server runs and is ready; exit code 14 where none runs."""
    folder = _recorded(find_installation(begin).root)
    if wait is not None:
        _wait(folder, port, node_rank, wait)
    states = servers(folder, port, node_rank)
    records = [_record(one) for one in states]
    answer({"servers": records}, *map(_sentence, records))
    if not any(one.running for one in states):
        raise _gone(states, folder)
    if lost := [name for record in records for name in record["lost"]]:
        raise ServeError(
            f"the server lost {', '.join(lost)} and answers no more",
            where=folder,
            hint="bundler stop, then start it again",
        )


@command("logs")
@one_server_options
@click.option("-f", "--follow", is_flag=True, help="Go on until the server ends.")
@click.option("-n", "--lines", type=int, default=50, show_default=True, help="Lines from the end.")
def logs_command(begin: Path, port: int | None, node_rank: int | None, follow: bool, lines: int) -> None:
    """Show the server's log; the last server's where none runs."""
    if follow and MANNER.json:
        raise UsageError("--follow goes on, and --json is one object", hint="leave one of them out")
    folder = _recorded(find_installation(begin).root)
    logs = sorted(folder.glob("server-*.log"), key=lambda path: path.stat().st_mtime)
    if not logs:
        raise NotRunningError("there is no log here", where=folder, hint="bundler serve writes one")
    states = servers(folder)
    state = choose(folder, port, node_rank) if states else None
    path = Path(state.log) if state else logs[-1]
    tail = LogTail(path)
    last = tail.drain()[-lines:]
    answer({"log": path, "lines": last}, *last)
    if follow and state:
        _follow(tail, state)


def _follow(tail: LogTail, state: ServerState) -> None:
    """Print a server's log until it has ended, its last lines too."""
    running = True
    while running:
        # Asked before the log is read: what it wrote until then is whole.
        running = state.running
        for line in tail.read() if running else tail.drain():
            show(line)
        if running:
            time.sleep(POLL)


@command("stop")
@one_server_options
@click.option("--all", "every", is_flag=True, help="All servers of the installation.")
@click.option("--grace", type=float, default=GRACE, show_default=True, help="Seconds to finish requests.")
def stop_command(begin: Path, port: int | None, node_rank: int | None, every: bool, grace: float) -> None:
    """End the server and every process of it; say whether the GPUs' memory came back."""
    root = find_installation(begin).root
    say(f"installation: {root}")
    folder = _recorded(root)
    found = servers(folder) if every else [choose(folder, port, node_rank)]
    if not found:
        raise NotRunningError("no server of this installation runs", where=folder)
    stopped: list[dict[str, Any]] = []
    for state in found:
        began = time.monotonic()
        lines = stop(folder, state, grace)
        seconds = time.monotonic() - began
        released = "" if not state.gpu_used else ", GPU memory as before it" if not lines else ""
        stopped.append({"model": state.model, "port": state.port, "seconds": seconds, "notes": lines})
        answer(
            {"stopped": stopped},
            f"{state.model} on port {state.port}: stopped in {seconds:.1f} s, nothing left{released}",
        )
        for line in lines:
            say(line)


def _recorded(root: Path) -> Path:
    """Return where this user's servers of an installation are recorded.

    :raises NotRunningError: there is none, and one of another user.
    """
    folder = run_folder(root)
    if not servers(folder) and (users := other_users(root)):
        raise NotRunningError(
            f"no server of yours is recorded here; of {', '.join(users)} there is one",
            where=root,
            hint=f"as that user: sudo -u {shlex.quote(users[0])} bundler {MANNER.command}",
        )
    return folder


def _wait(folder: Path, port: int | None, node_rank: int | None, seconds: float) -> None:
    """Wait until a server is recorded and ready.

    :raises NotRunningError: it ended, or never began.
    :raises ServeError: the time is up.
    """
    deadline, seen = time.monotonic() + seconds, False
    while time.monotonic() < deadline:
        states = servers(folder, port, node_rank)
        if seen and not any(one.running for one in states):
            raise _gone(states, folder)
        seen = seen or bool(states)
        if states and all(health(one.url) == "ready" and not one.warming for one in states):
            return
        time.sleep(POLL)
    raise ServeError(f"not ready after {duration_text(seconds)}", where=folder, hint="see: bundler logs")


def _record(state: ServerState) -> dict[str, Any]:
    """Return what ``status --json`` says of a server."""
    running = state.running
    answer = health(state.url) if running else "ended"
    progress = Progress(0.0)
    if running and answer != "ready":
        for line in LogTail(Path(state.log)).drain():
            progress.see(line, 0.0)
    lost = state.lost if running else []
    if answer == "ready" and state.warming:
        answer = "warming up"
    doing = f"{progress.stage} {progress.detail}".strip() if answer not in KNOWN else answer
    uptime = round(time.time() - state.started, 1) if running else None
    if lost:
        doing = f"lost {', '.join(lost)}"
    return {
        **facts_of(state),
        "running": running,
        "lost": lost,
        "health": answer,
        "doing": doing,
        "uptime": uptime,
    }


def facts_of(state: ServerState) -> dict[str, Any]:
    """Return what a server was started as, each of its ranks with names."""
    facts: dict[str, Any] = named(state)
    for private in ("start", "marker", "supervisor_start", "warmed_by"):
        facts.pop(private, None)
    ranks = [{"pid": int(pid), "title": title} for pid, (_, title) in state.ranks.items()]
    return {**facts, "ranks": ranks}


def _sentence(record: dict[str, Any]) -> str:
    text = f"{record['model']} on {record['url']}, tp-size {record['tp_size']}, pid {record['pid']}: "
    text += record["doing"]
    if record["running"]:
        text += f", for {duration_text(record['uptime'])}"
    if record["ready_after"] is not None:
        text += f", ready after {duration_text(record['ready_after'])}"
    return str(text)


def _gone(states: Sequence[ServerState], folder: Path) -> NotRunningError:
    """Return the error for a server that isn't there, with the cause where its log tells one."""
    if not states:
        return NotRunningError(
            "no server of this installation runs", where=folder, hint="start it with: bundler serve --detach"
        )
    findings, fix = diagnose(LogTail(Path(states[0].log)).drain())
    return NotRunningError(
        f"the server on port {states[0].port} ended by itself",
        where=states[0].log,
        findings=findings,
        hint=fix or "start it again: bundler serve --detach",
    )
