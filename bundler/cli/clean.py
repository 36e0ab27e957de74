"""``bundler clean``: what no lock and no manifest here names, freed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bundler.cli.command import command
from bundler.cli.completion import locked_environments
from bundler.cli.options import workspace_option
from bundler.cli.output import answer, say
from bundler.cli.progress import reporter
from bundler.common.units import size_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bundler.work.clean import Waste


@command("clean")
@click.option("--dry-run", is_flag=True, help="Say it, and remove nothing.")
@click.option(
    "--keep-env",
    "keep",
    multiple=True,
    metavar="ENV",
    shell_complete=locked_environments,
    help="An environment whose artifacts stay; repeatable.  [default: all of the lock]",
)
@click.option("--caches", is_flag=True, help="The installers' caches, too: a rehearsal fills them again.")
@click.option("--weights", is_flag=True, help="Models, too, that no manifest here names.")
@workspace_option
def clean_command(keep: Sequence[str], caches: bool, weights: bool, dry_run: bool, workspace: Path) -> None:
    """Free what of .pkg-cache no environment of the lock names; say which models no manifest names.

    Bundles that were packed, and bundler's own environment, stay.
    """
    from bundler.work.clean import clean

    say(f"workspace: {workspace.absolute()}")
    found = clean(workspace, keep, caches=caches, weights=weights, dry_run=dry_run, reporter=reporter())
    freed = sum(one.size for one in found if not one.kept)
    last = f"{size_text(freed)} {'would be' if dry_run else 'were'} freed" if found else "nothing to free"
    answer({"dry_run": dry_run, "freed": freed, "unused": found}, *map(_line, found), last)


def _line(one: Waste) -> str:
    how = "  (stays; --weights frees it)" if one.kept else ""
    return f"{size_text(one.size):>8}  {one.what}: {len(one.paths)}{how}"
