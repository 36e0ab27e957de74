"""``bundler plan``: what a bundle needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from bundler.cli.options import choice_options, json_option, workspace_option
from bundler.cli.plan_text import plan_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bundler.collect.plan import Plan


@click.command("plan")
@choice_options
@click.option("--offline", is_flag=True, help="Ask no host for the sizes that the lock doesn't state.")
@json_option
@workspace_option
def plan_command(
    environments: Sequence[str],
    models: Sequence[str],
    allow_unhashed: bool,
    offline: bool,
    as_json: bool,
    workspace: Path,
) -> None:
    """Say what a bundle needs: every artifact, what is here, space, time, and what the target must have."""
    from bundler.work.plan import listed_models, planned
    from bundler.work.selection import select
    from bundler.workspace import PACKED

    selection = select(workspace, environments, models, allow_unhashed=allow_unhashed)
    listings = listed_models(selection.models, selection.weights)
    plan = planned(workspace, selection.fetched, listings, offline=offline, output=workspace / PACKED)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(plan), indent=1))
        return
    click.echo(plan_text(plan))
    if selection.workspace and not environments and not models:
        names = ", ".join(selection.workspace.environments)
        click.echo(f"\nenvironments: {names}; choose with --env", err=True)


def show_plan(plan: Plan, *, as_json: bool, dry_run: bool) -> None:
    """Print the plan: whole for a dry run, without each artifact before the work."""
    if as_json:
        if dry_run:
            click.echo(msgspec.json.format(msgspec.json.encode(plan), indent=1))
        return
    click.echo(plan_text(plan, every=dry_run))
