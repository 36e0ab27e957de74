"""``bundler smoke``: start, ask, stop; or ask the server that runs."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bundler.cli.command import command
from bundler.cli.output import answer, say
from bundler.cli.progress import StageLine
from bundler.cli.serve import require_fit
from bundler.cli.serving import choice_of, key_option, launch_options, selection_options, start_options
from bundler.errors import ServeError, UnknownNameError, UsageError
from bundler.installation import find_installation
from bundler.model import Smoke
from bundler.serve.client import Client
from bundler.serve.process import refuse_second
from bundler.serve.server_record import run_folder, servers
from bundler.serve.smoke import SmokeResult, smoke, table
from bundler.serve.supervise import WaitSettings, supervised
from bundler.work.serving import open_choice

if TYPE_CHECKING:
    from bundler.serve.server_record import ServerState
    from bundler.work.serving import Choice

MODES = {"cu126": ("cu126",), "cu128": ("cu128",), "both": ("cu126", "cu128")}
TEAM_MODEL = "qwen2-vl-7b"
"""What the team's own script asks where its variables are set and no model is named."""


class Round(msgspec.Struct, frozen=True):
    """One server's answers."""

    server: str
    results: list[SmokeResult]


@command("smoke")
@selection_options
@start_options
@key_option("The server's key.")
@launch_options
def smoke_command(**options: Any) -> None:
    """Ask a server and check its answers: the one that runs, else one that is started and stopped.

    SGLANG_RUN_MODE=cu126|cu128|both starts one in each of these environments, SGLANG_MODEL_DIR names other
    weights, SGLANG_TP_SIZE_CU126 and SGLANG_TP_SIZE_CU128 set the tp-size.
    """
    rounds = _rounds(options)
    lines = [line for one in rounds for line in (one.server, *table(one.results))]
    answer({"rounds": rounds}, *lines)
    failed = [
        f"{one.server}: {result.check}" for one in rounds for result in one.results if not result.passed
    ]
    if failed:
        raise ServeError("the smoke test failed", findings=failed)


def _rounds(options: dict[str, Any]) -> list[Round]:
    mode = os.environ.get("SGLANG_RUN_MODE")
    if mode is not None and mode not in MODES:
        raise UsageError(f"SGLANG_RUN_MODE={mode!r} is none of {', '.join(MODES)}")
    if mode is None and (running := _running(options)) is not None:
        return [_ask(options, running)]
    return [_start_ask_stop(options, choice) for choice in _choices(options, mode)]


def _running(options: dict[str, Any]) -> ServerState | None:
    """Return the server that runs already, if it is one that was named.

    :raises UsageError: several are.
    """
    states = [
        one
        for one in servers(run_folder(find_installation(options["start"]).root))
        if one.running and options["port"] in (None, one.port) and one.node_rank == 0
    ]
    if options["model"]:
        name = find_installation(options["start"]).model(options["model"]).spec.name
        states = [one for one in states if one.model == name]
    if len(states) > 1:
        names = [f"{one.model} on port {one.port}, pid {one.pid}" for one in states]
        raise UsageError("which server? several run here", findings=names, hint="name one: --port N")
    return states[0] if states else None


def _choices(options: dict[str, Any], mode: str | None) -> list[Choice]:
    """Return one choice for each server to start."""
    folder = os.environ.get("SGLANG_MODEL_DIR")
    base = choice_of(options, weights=Path(folder) if folder else None)
    if mode is None:
        return [_sized(base)]
    model = base.model or TEAM_MODEL
    return [_sized(replace(base, environment=name, model=model)) for name in MODES[mode]]


def _sized(choice: Choice) -> Choice:
    """Take the tp-size that the team's variables name for an environment."""
    names = _names(choice)
    variable = "SGLANG_TP_SIZE_CU126" if names & {"cu126", "default"} else "SGLANG_TP_SIZE_CU128"
    text = os.environ.get(variable) if names & {"cu126", "default", "cu128"} else None
    if text is None or choice.wishes.tp_size is not None:
        return choice
    if not text.isdigit() or int(text) < 1:
        raise UsageError(f"{variable}={text!r} is not a number of GPUs")
    return replace(choice, wishes=replace(choice.wishes, tp_size=int(text)))


def _names(choice: Choice) -> set[str]:
    """Return the names of the environment that will serve: the one named, or the only one."""
    if choice.environment is not None or choice.python is not None:
        return {choice.environment} if choice.environment else set()
    try:
        only = find_installation(choice.start).environment(None)
    except UnknownNameError:
        return set()
    return {only.name, *only.aliases}


def _ask(options: dict[str, Any], state: ServerState) -> Round:
    """Ask a server that runs, all that its model is said to do."""
    models = find_installation(options["start"]).models
    wanted = models[state.model].spec.smoke if state.model in models else Smoke()
    key_file = options["api_key_file"] or (Path(state.api_key_file) if state.api_key_file else None)
    client = Client(state.url, key=key_file.read_text().strip() if key_file else None)
    where = f"{state.model} on {state.url}" + (
        f", environment {state.environment}" if state.environment else ""
    )
    return Round(where, smoke(client, state.served_name, wanted))


def _start_ask_stop(options: dict[str, Any], choice: Choice) -> Round:
    """Start a server, ask it, and end it whatever happens."""
    opened = open_choice(choice)
    say(f"installation: {opened.launch.target.root}")
    refuse_second(opened.launch)
    if not options["no_doctor"]:
        require_fit(opened)
    settings = WaitSettings(say, timeout=options["timeout"], count=StageLine())
    with supervised(opened.launch, opened.host, os.environ, settings, detach=True) as server:
        server.become_ready()
        answers = _ask(options, server.state)
        server.end()
        return answers
