"""``bundler serve``: the server, started and waited for."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from bundler.cli.command import command
from bundler.cli.doctor import count_text
from bundler.cli.output import MANNER, answer, say, show_document, show_text
from bundler.cli.progress import StageLine, reporter
from bundler.cli.server import facts_of
from bundler.cli.serving import (
    choice_of,
    key_option,
    launch_options,
    selection_options,
    start_options,
)
from bundler.errors import DoctorError
from bundler.host.finding import Finding, table
from bundler.serve.environment_checks import check_openness
from bundler.serve.flags import parse, value_of
from bundler.serve.process import read_key, refuse_second
from bundler.serve.server_record import servers
from bundler.serve.supervise import WaitSettings, supervised
from bundler.serve.warmup import WarmUp
from bundler.work.serving import findings_of, open_choice

if TYPE_CHECKING:
    from bundler.serve.launch import ServerLaunch
    from bundler.work.serving import Opened


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
        answer({"server": facts_of(server.state)})
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
