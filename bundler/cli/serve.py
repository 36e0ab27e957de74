"""``bundler serve``, ``status``, ``logs``, ``stop``: the server from its start to its end."""

from __future__ import annotations

import os
import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bundler.cli.command import command
from bundler.cli.doctor import count_text
from bundler.cli.output import MANNER, answer, named, say, show, show_document, show_text
from bundler.cli.progress import StageLine, reporter
from bundler.cli.serving import (
    choice_of,
    key_option,
    launch_options,
    one_server_options,
    selection_options,
    start_options,
)
from bundler.common.units import duration_text
from bundler.errors import DoctorError, NotRunningError, ServeError, UsageError
from bundler.host.finding import Finding, table
from bundler.installation import find_installation
from bundler.serve.environment_checks import check_openness
from bundler.serve.failures import diagnose
from bundler.serve.flags import parse, value_of
from bundler.serve.process import GRACE, read_key, refuse_second, stop
from bundler.serve.progress_log import LogTail, Progress
from bundler.serve.readiness import health
from bundler.serve.server_record import ServerState, choose, other_users, run_folder, servers
from bundler.serve.supervise import WaitSettings, supervised
from bundler.serve.warmup import WarmUp
from bundler.work.serving import findings_of, open_choice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bundler.serve.launch import ServerLaunch
    from bundler.work.serving import Opened

POLL = 0.3
KNOWN = ("ready", "warming up", "ended")
"""What a server does where its log need not be asked."""


@command("serve")
@selection_options
@click.option("--dry-run", is_flag=True, help="Print the command as one would type it; a workspace will do.")
@click.option("--detach", is_flag=True, help="Return once the server is ready, and leave it running.")
@click.option("--no-wait", is_flag=True, help="With --detach: return at once.")
@click.option("--no-warm-up", is_flag=True, help="Ready without first chats: the first user waits for them.")
@start_options
@click.option("--no-log", is_flag=True, help="Don't show the server's log.")
@click.option("--no-read-ahead", is_flag=True, help="Don't read the weights into the page cache meanwhile.")
@key_option("A file with the key that clients must give; readable by its owner alone.")
@launch_options
def serve_command(**options: Any) -> None:
    """Launch the tensor-parallel SGLang server: doctor first, ready when it is warm, ended as a whole."""
    dry_run, key_file, detach = options["dry_run"], options["api_key_file"], options["detach"]
    key = read_key(key_file) if key_file and not dry_run else ""
    opened = open_choice(choice_of(options, key_file if key else None, dry_run=dry_run))
    launch = opened.launch
    if dry_run:
        show_launch(launch)
        show_kept(launch)
        return
    say(f"installation: {launch.target.root}")
    refuse_second(launch)
    if options["no_doctor"]:
        say("\n".join(table([check_openness(launch)])))
    else:
        require_fit(opened)
    show_kept(launch)

    asked = not (options["no_warm_up"] or options["no_wait"]) and launch.node_rank == 0
    given = key or value_of("api-key", {}, parse(launch.argv))
    warm_up = WarmUp(launch.target.spec.smoke, given) if asked else None

    def echo(line: str) -> None:
        # SGLang logs its flags.
        say(line.replace(key, "***") if key else line, result=True)

    settings = WaitSettings(
        say,
        timeout=options["timeout"],
        read_ahead=not options["no_read_ahead"],
        count=StageLine(),
        warm_up=warm_up,
    )
    if not (detach or options["no_log"] or MANNER.quiet):
        settings = replace(settings, echo=echo)
    with supervised(launch, opened.host, os.environ, settings, detach=detach) as server:
        say(f"{launch.target.spec.name}: pid {server.state.pid}, log {server.state.log}")
        if not (detach and options["no_wait"]):
            server.become_ready()
        answer({"server": _facts(server.state)})
        if not detach:
            # Before it ends: whoever reads it is to ask the server.
            show_document()
            server.watch()
    if detach and not options["no_wait"]:
        several = len([one for one in servers(launch.folder) if one.running]) > 1
        which = f" --port {launch.port}" if several else ""
        say(f"{launch.url} serves {launch.served_name}; end it with: bundler stop{which}", result=True)


def show_launch(launch: ServerLaunch) -> None:
    """Print the command that would be run."""
    if MANNER.json:
        variables = {**launch.activation, **launch.added}
        answer({"argv": launch.argv, "variables": variables, "withheld": launch.withheld, "url": launch.url})
    else:
        show_text(f"{launch.shown()}\n")


def show_kept(launch: ServerLaunch) -> None:
    """Say which of the user's variables win over bundler's, and which the server doesn't get."""
    for name, value in sorted(launch.kept.items()):
        say(f"kept from your environment: {name}={value}")
    if launch.withheld:
        names = ", ".join(launch.withheld)
        say(f"not passed on from your environment: {names} (--keep-env NAME passes one on)")


def require_fit(opened: Opened) -> None:
    """Run doctor's checks, show what isn't good, and end if something fails.

    :raises DoctorError: naming everything that fails.
    """
    findings: list[Finding] = findings_of(opened, reporter=reporter())
    failed = [one for one in findings if one.level == "fail"]
    if failed:
        raise DoctorError(
            "this host can't serve the model",
            findings=[one.line for one in failed],
            hint="bundler doctor shows everything; --no-doctor starts it all the same",
        )
    warned = [one for one in findings if one.level == "warn"]
    if warned:
        say("\n".join(table(warned)))
    say(f"doctor: {len(findings)} checks, {count_text(len(warned))}")


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
        **_facts(state),
        "running": running,
        "lost": lost,
        "health": answer,
        "doing": doing,
        "uptime": uptime,
    }


def _facts(state: ServerState) -> dict[str, Any]:
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
