"""Options that several commands share, and the types of their values."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bundler.cli.completion import known_models, locked_environments

if TYPE_CHECKING:
    from collections.abc import Callable

Command = TypeVar("Command", bound="Callable[..., Any]")

POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}


class Size(click.ParamType[int]):
    """A number of bytes as people write it: ``3900MiB``, ``8GiB``, ``4G``, ``1000000``."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return bytes."""
        if isinstance(value, int):
            return value
        parts = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?\s*", value, re.IGNORECASE)
        if parts is None:
            self.fail(f"{value!r} is not a size; write it like 3900MiB or 8GB", param, ctx)
        unit = (parts[2] or "").lower()
        base = 1024 if unit.endswith("i") else 1000
        return int(float(parts[1]) * base ** POWERS.get(unit[:1], 0))


def workspace_option(command: Command) -> Command:
    """``-C``: the workspace."""
    return click.option(
        "-C",
        "--workspace",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path(),
        is_eager=True,  # says where it can be done before it asks for more
        callback=_away_from_installations,
        help="The folder with pixi.toml and pixi.lock.  [default: here]",
    )(command)


def _away_from_installations(context: click.Context, _: click.Parameter, workspace: Path) -> Path:
    """Say of an installation's own bundler where this command can be used: an installation isn't a workspace.

    :raises UsageError: the folder isn't a workspace, and an installation's bundler was called.
    """
    from bundler.errors import UsageError
    from bundler.installation import STATE, own_installation
    from bundler.workspace import LOCK

    home = own_installation()
    if home is None or ((workspace / LOCK).is_file() and not (workspace / STATE).is_dir()):
        return workspace
    raise UsageError(
        f"{context.info_name} is for the online host: it works on a workspace, and reaches its sources",
        where=f"{home / 'bin' / 'bundler'}, the bundler of an installation",
        hint="run it there, where pixi.toml and pixi.lock are; --help lists what an installation can do",
    )


def threads_option(command: Command) -> Command:
    """``--threads``: how many threads compress or check."""
    return click.option(
        "--threads",
        type=click.IntRange(1, 16),
        help="Threads that compress, hash and write; memory stays under 400 MB and 32 MB for each.  "
        "[default: one for each core, at most 16]",
    )(command)


def restart_option(command: Command) -> Command:
    """``--restart``: of the units that ``bundler systemd`` wrote."""
    return click.option(
        "--restart",
        is_flag=True,
        help="Restart systemd's units that serve from another generation, and wait until they are ready.",
    )(command)


def installer_option(command: Command) -> Command:
    """``--installer``: what makes the environments."""
    return click.option(
        "--installer",
        type=click.Choice(["auto", "pixi", "native"]),
        default="auto",
        help="What installs: pixi, bundler's own way, or pixi where it is here.  [default: auto]",
    )(command)


def launch_option(command: Command) -> Command:
    """``--allow-launch``: what a model's manifest may set beyond the lists."""
    return click.option(
        "--allow-launch",
        multiple=True,
        metavar="NAME",
        help="Let the model's manifest set this flag or variable of the server; repeatable.",
    )(command)


def platform_option(command: Command) -> Command:
    """``--platform``: which of the lock's platforms."""
    return click.option(
        "--platform",
        metavar="NAME",
        help="The lock's platform to take where a GPU host fits several.  "
        "[default: the first that pixi takes there]",
    )(command)


def target_option(command: Command) -> Command:
    """``--target``: the host that it is for."""
    return click.option(
        "--target",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="A host as `bundler doctor --describe` wrote it: its driver decides on the lock's platform, and "
        "what won't run there is refused.",
    )(command)


def choice_options(command: Command) -> Command:
    """``--env``, ``--model`` and what belongs to them: what goes into the bundle."""
    command = platform_option(target_option(command))
    for option in (
        click.option(
            "--allow-unhashed", is_flag=True, help="Carry packages whose content the lock doesn't fix, too."
        ),
        click.option(
            "--all-files", is_flag=True, help="Carry a model's weights, too, that the server doesn't load."
        ),
        click.option(
            "--model",
            "models",
            multiple=True,
            metavar="MODEL",
            shell_complete=known_models,
            help="A manifest's name, PATH.toml, hf:OWNER/NAME, ms:OWNER/NAME or a folder; repeatable.",
        ),
        click.option(
            "-e",
            "--env",
            "environments",
            multiple=True,
            metavar="ENV",
            shell_complete=locked_environments,
            help="An environment of pixi.toml, or a feature of its own (cu126); repeatable.  "
            "[default: 'default', or none with --model]",
        ),
    ):
        command = option(command)
    return command
