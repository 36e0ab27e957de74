"""``bundler fetch``: the store and the weights filled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from bundler.cli.command import command
from bundler.cli.options import choice_options, workspace_option
from bundler.cli.output import answer, say
from bundler.cli.progress import reporter
from bundler.common.units import duration_text, size_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bundler.collect.fetch import Fetched


@command("fetch")
@choice_options
@click.option(
    "--jobs", type=click.IntRange(1, 64), default=8, show_default=True, help="Downloads at once, at most."
)
@click.option("--deep", is_flag=True, help="Hash every file that is here again, whatever is remembered.")
@workspace_option
def fetch_command(
    environments: Sequence[str],
    models: Sequence[str],
    jobs: int,
    deep: bool,
    workspace: Path,
    **choice: Any,
) -> None:
    """Fill .pkg-cache and the weights from locked, checksummed sources; run again, it goes on."""
    from bundler.collect.fetch import fetch
    from bundler.work.selection import select

    say(f"workspace: {workspace.absolute()}")
    selection = select(workspace, environments, models, **choice)
    artifacts = [artifact for one in selection.fetched for artifact in one.artifacts]
    shown = reporter()
    if artifacts:
        done = fetch(artifacts, selection.store, workspace=workspace, reporter=shown, jobs=jobs, deep=deep)
        names = [one.name for one in selection.fetched]
        answer({"environments": names, "artifacts": done}, f"{', '.join(names)}: {fetched_text(done)}")
    models_here = []
    for source in selection.models:
        folder = source.fetch(selection.weights, reporter=shown, jobs=jobs, rehash=deep)
        models_here.append({"name": source.spec.name, "folder": folder})
        answer({"models": models_here}, f"{source.spec.name}: {folder}")


def fetched_text(done: Fetched) -> str:
    """Return what a fetch did, in a line."""
    if not done.files:
        return f"all {done.present} files were here"
    here = f", {done.present} were here" if done.present else ""
    return f"{done.files} files fetched, {size_text(done.size)} in {duration_text(done.seconds)}{here}"
