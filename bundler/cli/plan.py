"""``bundler plan``: what a bundle needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from bundler.cli.command import command
from bundler.cli.options import choice_options, workspace_option
from bundler.cli.output import answer, named, say
from bundler.cli.plan_text import plan_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bundler.collect.plan import Plan


@command("plan")
@choice_options
@click.option("--offline", is_flag=True, help="Ask no host for the sizes that the lock doesn't state.")
@click.option("--list", "every", is_flag=True, help="List every artifact, too.")
@workspace_option
def plan_command(
    environments: Sequence[str],
    models: Sequence[str],
    offline: bool,
    every: bool,
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
    uncounted = [name for name, _ in failed]
    answer(
        {**plan_record(plan), "uncounted_models": uncounted},
        *plan_text(plan, every=every).split("\n"),
        *(f"model {name}: NOT COUNTED, its hub didn't answer" for name in uncounted),
    )
    if selection.workspace and not environments and not models:
        say(f"\nenvironments: {', '.join(selection.workspace.environments)}; choose with --env")
    if failed:
        raise failed[0][1]
    if choice["target"] is not None:
        check_target(selection, choice["target"])


def show_plan(plan: Plan, *, dry_run: bool) -> None:
    """Print the plan; to programs only where nothing follows, as the outcome is what they read then."""
    answer({"dry_run": True, "plan": plan_record(plan)} if dry_run else {}, *plan_text(plan).split("\n"))


def plan_record(plan: Plan) -> dict[str, Any]:
    """Return a plan as programs read it: both ends of an estimate have names."""
    ends = {
        name: dict(zip(("least", "most"), pair, strict=True))
        for name, pair in (("bundle", plan.bundle), ("installed", plan.installed))
    }
    return {**named(plan), **ends}
