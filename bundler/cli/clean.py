"""``bundler clean``: what no lock and no manifest here names, freed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bundler.cli.options import json_option, workspace_option
from bundler.cli.output import show_json
from bundler.cli.progress import reporter, say
from bundler.common.units import size_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bundler.work.clean import Waste


@click.command("clean")
@click.option("--dry-run", is_flag=True, help="Say it, and remove nothing.")
@click.option(
    "--keep-env",
    "keep",
    multiple=True,
    metavar="ENV",
    help="An environment whose artifacts stay; repeatable.  [default: all of the lock]",
)
@click.option("--caches", is_flag=True, help="The installers' caches, too: a rehearsal fills them again.")
@click.option("--weights", is_flag=True, help="Models, too, that no manifest here names.")
@json_option
@workspace_option
def clean_command(
    keep: Sequence[str], caches: bool, weights: bool, dry_run: bool, as_json: bool, workspace: Path
) -> None:
    """Free what of .pkg-cache no environment of the lock names; say which models no manifest names.

    Bundles that were packed, and bundler's own environment, stay.
    """
    from bundler.work.clean import clean

    say(f"workspace: {workspace.absolute()}")
    found = clean(workspace, keep, caches=caches, weights=weights, dry_run=dry_run, reporter=reporter())
    if as_json:
        rows = [
            {"what": one.what, "size": one.size, "kept": one.kept, "paths": [str(path) for path in one.paths]}
            for one in found
        ]
        show_json({"dry_run": dry_run, "unused": rows}, one_line=True)
        return
    for one in found:
        click.echo(_line(one))
    freed = sum(one.size for one in found if not one.kept)
    click.echo(
        f"{size_text(freed)} {'would be' if dry_run else 'were'} freed" if found else "nothing to free"
    )


def _line(one: Waste) -> str:
    how = "  (stays; --weights frees it)" if one.kept else ""
    return f"{size_text(one.size):>8}  {one.what}: {len(one.paths)}{how}"
