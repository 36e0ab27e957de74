"""``bundler rehearse``: an environment installed from the store with the network cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bundler.cli.command import command
from bundler.cli.completion import locked_environments
from bundler.cli.options import (
    installer_option,
    platform_option,
    target_option,
    workspace_option,
)
from bundler.cli.output import answer, say
from bundler.cli.progress import reporter
from bundler.errors import RehearsalError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bundler.install.installer import InstallerWord


@command("rehearse")
@click.option(
    "-e",
    "--env",
    "names",
    multiple=True,
    required=True,
    metavar="ENV",
    shell_complete=locked_environments,
    help="An environment of the lock.",
)
@installer_option
@click.option("--again", is_flag=True, help="Do it, whatever is remembered of an earlier one.")
@platform_option
@target_option
@workspace_option
def rehearse_command(
    names: Sequence[str],
    installer: InstallerWord,
    again: bool,
    platform: str | None,
    target: Path | None,
    workspace: Path,
) -> None:
    """Install environments from the store with the network cut, import, and throw them away.

    One that passed with the same lock, store and installer isn't repeated.

    By pixi, it fills the caches that `bundler env` names: `pixi install --frozen` under them then needs no
    network. Natively it fills rattler's and uv's, and pixi still fetches the wheels by itself.
    """
    from bundler.install.rehearsal import rehearse
    from bundler.store import Store
    from bundler.work.selection import open_workspace

    say(f"workspace: {workspace.absolute()}")
    loaded = open_workspace(workspace, names, platform, target)
    chosen = list({one.name: one for one in map(loaded.environment, names)}.values())
    store = Store.of(loaded.root)
    result = rehearse(loaded, chosen, store, installer=installer, again=again, reporter=reporter())
    what = [one.name for one in chosen]
    passed = (
        f"passed: {', '.join(what)} by {result.installer}, network cut by {result.isolation}",
        f"imported {', '.join(result.imports) or 'nothing'}",
    )
    answer({"environments": what, "rehearsal": result}, *(passed if result.status == "passed" else ()))
    if result.status != "passed":
        raise RehearsalError(f"not rehearsed: {result.reason}")
