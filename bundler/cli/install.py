"""``bundler install``: environments again, from an installation's own store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bundler.cli.command import command
from bundler.cli.completion import installed_environments
from bundler.cli.options import installer_option
from bundler.cli.output import answer, named, say
from bundler.cli.progress import reporter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bundler.install.installer import InstallerWord
    from bundler.installation import Installation


@command("install")
@click.argument(
    "destination", metavar="[DEST]", type=click.Path(path_type=Path, file_okay=False), required=False
)
@click.option(
    "-e",
    "--env",
    "names",
    multiple=True,
    metavar="ENV",
    shell_complete=installed_environments,
    help="An environment.  [default: all]",
)
@installer_option
@click.option(
    "--prune-store", is_flag=True, help="Remove .pkg-cache/mirror afterwards: disk space, no re-install."
)
def install_command(
    destination: Path | None, names: Sequence[str], installer: InstallerWord, prune_store: bool
) -> None:
    """Install environments again from the installation's own store, as after .pixi was deleted.

    DEST is the installation; without it, the one that is here.
    """
    from bundler.installation import Installation, find_installation
    from bundler.work.install import install_environments, remove_store

    found = Installation(destination) if destination else find_installation()
    say(f"installation: {found.root}")
    shown = reporter()
    wanted = names or tuple(found.environments)
    if wanted:
        found = install_environments(found, wanted, installer, shown)
    if prune_store:
        found = remove_store(found, shown)
    done = environment_records(found)
    answer(
        {"installation": found.root, "environments": done},
        *(f"{one['name']}: installed by {one['installer']} in {one['prefix']}" for one in done),
    )


def environment_records(installation: Installation) -> list[dict[str, Any]]:
    """Return an installation's environments with the folder of each."""
    done = installation.receipt.environments
    return [{**named(one), "prefix": installation.prefix(one.name)} for one in done]
