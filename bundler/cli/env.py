"""``bundler env``: the cache variables of the team's layout, for a shell."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from bundler.cli.command import command
from bundler.cli.options import workspace_option
from bundler.cli.output import answer
from bundler.errors import DestinationError

if TYPE_CHECKING:
    from pathlib import Path


@command("env")
@workspace_option
def env_command(workspace: Path) -> None:
    """Print the cache variables of .pkg-cache and make its folders: eval "$(bundler env)"."""
    from bundler.store import Store

    store = Store.of(workspace)
    try:
        store.make_folders()
    except OSError as problem:
        raise DestinationError(
            f"the cache folders can't be made: {problem.strerror}",
            where=store.root.absolute(),
            hint="check the folder's permissions, or name another workspace with -C",
        ) from problem
    variables = store.cache_environment()
    answer(
        {"variables": variables},
        *(f"export {variable}={shlex.quote(folder)}" for variable, folder in variables.items()),
    )
