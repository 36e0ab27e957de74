"""``bundler doctor``: this host, or a described one, against what serving needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bundler.cli.command import command
from bundler.cli.output import MANNER, answer, answer_columns, say, show_facts
from bundler.cli.progress import reporter
from bundler.cli.serving import choice_of, key_option, launch_options, selection_options
from bundler.cli.typed import typed
from bundler.errors import DoctorError, UnknownNameError, UsageError, WarningsError
from bundler.host.facts import HostFacts, describe, read_target
from bundler.host.finding import Finding, good, table, worst
from bundler.serve.server_record import servers
from bundler.work.serving import findings_of, open_choice

if TYPE_CHECKING:
    from bundler.serve.launch import ServerLaunch

T = TypeVar("T")

OWN = frozenset({"port", "GPU memory", "occupied GPUs"})
"""Findings that the installation's own running server would turn bad."""


@command("doctor")
@selection_options
@click.option("--deep", is_flag=True, help="Hash every byte of the weights.")
@click.option("--describe", "describing", is_flag=True, help="Print this host's facts as JSON, and no more.")
@click.option(
    "--target",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Compare the host that --describe wrote instead of this one.",
)
@click.option(
    "--bundle",
    type=click.Path(path_type=Path, exists=True),
    help="Compare with a bundle, not an installation.",
)
@key_option()
@launch_options
def doctor_command(**options: Any) -> None:
    """Compare this host with what the model and the environment need.

    Changes nothing. Exit code 0: all good; 15: warnings; 12: something keeps the server from running.
    """
    if options["describing"]:
        facts = describe()
        # The file that --target reads: with nothing around it, unless that is asked for.
        answer({"host": facts}) if MANNER.json else show_facts(facts)
        return
    if options["target"] and options["deep"]:
        raise UsageError("--deep reads this host's weights; --target describes another host")
    host = read_target(options["target"]) if options["target"] else None
    findings = _against_bundle(options, host) if options["bundle"] else _against_installation(options, host)
    lines = (typed(line, MANNER.folders) for line in table(findings, answer_columns()))
    answer({"level": worst(findings), "findings": findings}, *lines)
    conclude(findings)


def conclude(findings: list[Finding]) -> None:
    """End with the exit code that the findings deserve.

    :raises DoctorError: something fails.
    """
    failed = [one for one in findings if one.level == "fail"]
    warned = [one for one in findings if one.level == "warn"]
    if failed:
        names = ", ".join(dict.fromkeys(one.name for one in failed))
        raise DoctorError(f"{len(failed)} of {len(findings)} checks failed: {names}")
    say(f"{len(findings)} checks: {count_text(len(warned))}")
    if warned:
        raise click.exceptions.Exit(WarningsError.exit_code)


def count_text(warnings: int) -> str:
    """Return ``no warnings``, ``1 warning``, ``2 warnings``."""
    return f"{warnings or 'no'} warning{'' if warnings == 1 else 's'}"


def _against_bundle(options: dict[str, Any], host: HostFacts | None) -> list[Finding]:
    """Compare with each environment and model of a bundle that were named, or with all of them."""
    from bundler import manifest as manifests
    from bundler.archive.bundle import find_bundle
    from bundler.archive.sums import MANIFEST
    from bundler.host.doctor import examine_all

    place = options["bundle"]
    # A manifest alone, carried ahead of its bundle, will do.
    there = place / MANIFEST if (place / MANIFEST).is_file() else None
    path = place if place.is_file() else there or find_bundle(place) / MANIFEST
    manifest = manifests.read(path)
    host = host or describe()
    environments = _of_name(
        [(one, (one.name, *one.aliases)) for one in manifest.environments],
        options["environment"],
        "environment",
        path,
    )
    models = _of_name(
        [(one, (one.spec.name, *one.spec.aliases)) for one in manifest.models],
        options["model"],
        "model",
        path,
    )
    return examine_all(host, environments, models, tp_size=options["tp_size"], port=options["port"])


def _of_name(found: list[tuple[T, tuple[str, ...]]], word: str | None, noun: str, path: Path) -> list[T]:
    """Return what goes by a name, or all where none is given.

    :param found: things, each with its name and aliases.
    :raises UnknownNameError: nothing goes by it.
    """
    chosen = [one for one, names in found if word is None or word.lower() in map(str.lower, names)]
    if word is not None and not chosen:
        have = ", ".join(names[0] for _, names in found) or "none"
        raise UnknownNameError(f"no {noun} {word!r} in the bundle; there are: {have}", where=path)
    return chosen


def _against_installation(options: dict[str, Any], host: HostFacts | None) -> list[Finding]:
    opened = open_choice(choice_of(options, dry_run=True, model_optional=True), host)
    deep, key, here = options["deep"], bool(options["api_key_file"]), host is None
    findings = findings_of(opened, deep=deep, here=here, key=key, reporter=reporter())
    return _without_own_server(opened.launch, findings) if here else findings


def _without_own_server(launch: ServerLaunch, findings: list[Finding]) -> list[Finding]:
    """Don't hold the running server's own port and memory against it."""
    running = [one for one in servers(launch.folder, launch.port) if one.running]
    if not running:
        return findings
    pid = running[0].pid
    own = OWN | {"access"} if running[0].api_key_file else OWN
    return [
        good(one.group, one.name, f"held by this installation's own server, pid {pid}")
        if one.name in own and one.level != "good"
        else one
        for one in findings
    ]
