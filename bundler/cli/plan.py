"""``bundler plan``: what a bundle needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from bundler.cli.options import choice_options, json_option, workspace_option
from bundler.cli.output import show_json
from bundler.cli.plan_text import plan_text
from bundler.common.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bundler.collect.plan import Plan


@click.command("plan")
@choice_options
@click.option("--offline", is_flag=True, help="Ask no host for the sizes that the lock doesn't state.")
@click.option("--list", "every", is_flag=True, help="List every artifact, too.")
@json_option
@workspace_option
def plan_command(
    environments: Sequence[str],
    models: Sequence[str],
    offline: bool,
    every: bool,
    as_json: bool,
    workspace: Path,
    **choice: Any,
) -> None:
    """Say what a bundle needs: how much, what is here, space, time, and what the target must have."""
    from bundler.errors import FetchError
    from bundler.work.plan import check_target, listed_models, planned
    from bundler.work.selection import select
    from bundler.workspace import PACKED

    selection = select(workspace, environments, models, **choice)
    listings, failed = [], []
    for source in selection.models:
        try:
            listings += listed_models([source], selection.weights)
        except FetchError as problem:
            failed.append((source.spec.name, problem))
    plan = planned(workspace, selection.fetched, listings, offline=offline, output=workspace / PACKED)
    if as_json:
        show_json(plan)
    else:
        click.echo(printable(plan_text(plan, every=every)))
        for name, _ in failed:
            click.echo(f"model {name}: NOT COUNTED, its hub didn't answer")
        if selection.workspace and not environments and not models:
            names = ", ".join(selection.workspace.environments)
            click.echo(f"\nenvironments: {names}; choose with --env", err=True)
    if failed:
        raise failed[0][1]
    if choice["target"] is not None:
        check_target(selection, choice["target"])


def show_plan(plan: Plan, *, as_json: bool, dry_run: bool) -> None:
    """Print the plan; with ``--json`` before the work nothing, as the outcome is what programs read then."""
    if as_json:
        if dry_run:
            show_json(plan)
        return
    click.echo(printable(plan_text(plan)))
