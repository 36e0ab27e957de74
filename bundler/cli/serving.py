"""The options that doctor, check, serve, smoke and systemd share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bundler.cli.completion import installed_environments, installed_models
from bundler.cli.options import launch_option
from bundler.installation import UNNAMED
from bundler.serve.cluster import nodes_of
from bundler.serve.launch import Wishes
from bundler.serve.supervise import DEFAULT_TIMEOUT
from bundler.work.serving import Choice

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Command = TypeVar("Command", bound="Callable[..., Any]")

AUTO = "auto"
WISHES = (
    *("tp_size", "host", "port", "nnodes", "node_rank", "dist_init_addr"),
    *("keep_env", "allow_launch", "extra"),
)


class NodeCount(click.IntRange):
    """How many nodes, or the word that leaves it to the launcher of the job."""

    name = "number or auto"

    def __init__(self) -> None:
        super().__init__(min=1)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number or the word."""
        return AUTO if value == AUTO else super().convert(value, param, ctx)


def or_unnamed(context: click.Context, option: click.Parameter, place: Path | None) -> Path:
    """Tell a folder that was named, which is absolute by now, from one that wasn't."""
    return UNNAMED if place is None else place


FOLDER = click.Path(path_type=Path, file_okay=False, exists=True, resolve_path=True)
KEY_FILE = click.Path(path_type=Path, dir_okay=False)


def option_group(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Return one decorator for several options, which ``--help`` lists in their order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


selection_options = option_group(
    click.option(
        "-C",
        "--installation",
        "start",
        type=FOLDER,
        callback=or_unnamed,
        help="The installation.  [default: this bin/bundler's own, $BUNDLER_HOME, here, above, below]",
    ),
    click.option(
        "-e",
        "--env",
        "environment",
        metavar="NAME",
        shell_complete=installed_environments,
        help="The environment, where there are several.",
    ),
    click.option(
        "--model",
        metavar="NAME",
        shell_complete=installed_models,
        help="The model, where there are several.",
    ),
    click.option("--python", metavar="PATH", help="Serve from an interpreter that has SGLang already."),
    launch_option,
)
"""``-C``, ``--env``, ``--model``, ``--python``, ``--allow-launch``."""
launch_options = option_group(
    click.option(
        "--tp-size",
        type=click.IntRange(min=1),
        help="GPUs over all nodes.  [default: those visible that divide the heads]",
    ),
    click.option("--host", help="0.0.0.0, or 127.0.0.1 for this host alone.  [default: the manifest's]"),
    click.option("--port", type=click.IntRange(1, 65535), help="[default: the manifest's, else 30000]"),
    click.option(
        "--nnodes",
        type=NodeCount(),
        default=1,
        show_default=True,
        help="Nodes; auto: as Slurm, Open MPI or torchrun says, the rank and the first address too.",
    ),
    click.option("--node-rank", type=click.IntRange(min=0), default=0, help="This node's rank, from 0."),
    click.option("--dist-init-addr", metavar="HOST:PORT", help="The first node's address."),
    click.option(
        "--keep-env",
        multiple=True,
        metavar="NAME",
        help="Pass on this proxy, PYTHON*, LD_*, PIP_* or CONDA_* variable too; repeatable.",
    ),
    click.argument("extra", nargs=-1, type=click.UNPROCESSED, metavar="[-- SGLANG FLAGS]"),
)
"""``--tp-size``, the address, the nodes, and SGLang's own flags after ``--``."""
start_options = option_group(
    click.option("--no-doctor", is_flag=True, help="Start whatever the checks would say."),
    click.option(
        "--timeout", type=float, default=DEFAULT_TIMEOUT, show_default=True, help="Seconds until ready."
    ),
)
"""``--no-doctor``, ``--timeout``."""
installation_option = click.option(
    "-C", "--installation", "begin", type=FOLDER, callback=or_unnamed, help="The installation."
)
"""``-C`` alone."""
one_server_options = option_group(
    installation_option,
    click.option("--port", type=int, help="The server, where several run here."),
    click.option("--node-rank", type=int, help="The node, where several ranks run here."),
)
"""``-C``, ``--port``, ``--node-rank``: which server is meant."""


def key_option(text: str = "The key that clients must give.") -> Callable[[Command], Command]:
    """``--api-key-file``."""
    return click.option("--api-key-file", type=KEY_FILE, help=text)


def choice_of(options: Mapping[str, Any], key_file: Path | None = None, **more: Any) -> Choice:
    """Return what the selection and launch options name.

    :param key_file: the file with the key that the server is to ask its clients for.
    :raises UsageError: the nodes are to be what a launcher of jobs says, and none does.
    """
    named = {name: options[name] for name in WISHES}
    if named["nnodes"] == AUTO:
        nodes = nodes_of(os.environ)
        address = named["dist_init_addr"] or (nodes.first if nodes.nnodes > 1 else None)
        named |= {"nnodes": nodes.nnodes, "node_rank": nodes.rank, "dist_init_addr": address}
    wishes = Wishes(**named, key_file=key_file)
    names = ("start", "environment", "model", "python")
    return Choice(**{name: options[name] for name in names}, wishes=wishes, **more)
