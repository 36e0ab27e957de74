"""systemd units: one for each node, restarted when it fails, counted as started when it is ready."""

from __future__ import annotations

import re
from importlib import resources
from string import Template
from typing import TYPE_CHECKING

from bundler.generations import home_of
from bundler.serve.launch import DEFAULT_PORT
from bundler.serve.server_record import server_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bundler.serve.launch import ServerLaunch

START_SECONDS = 3600
STOP_SECONDS = 90


def unit_name(launch: ServerLaunch, rank: int) -> str:
    """Return a unit's file name: ``bundler-glm-4.7.service``, with port and rank where there are others."""
    words = re.sub(r"[^\w.-]", "-", launch.target.spec.name)
    node = f"-rank{rank}" if launch.wishes.nnodes > 1 else ""
    port = f"-{launch.port}" if launch.port != DEFAULT_PORT else ""
    return f"bundler-{words.lower()}{port}{node}.service"


def unit(
    launch: ServerLaunch,
    bundler: Sequence[str],
    rank: int = 0,
    *,
    user: str | None = None,
    start_seconds: int = START_SECONDS,
) -> str:
    """Return the text of the unit of one node.

    :param bundler: the words that run bundler.
    :param user: who serves; root where not given.
    """
    target, nnodes, port = launch.target, launch.wishes.nnodes, str(launch.port)
    home = home_of(target.root.absolute())
    status = ["status", "--wait", str(start_seconds), "--port", port, "--node-rank", str(rank)]
    template = resources.files("bundler.serve").joinpath("data/bundler.service").read_text("utf-8")
    return Template(template).substitute(
        model=target.spec.name,
        port=port,
        node=f", node rank {rank} of {nnodes}" if nnodes > 1 else "",
        root=str(home).replace("%", "%%"),
        user=f"User={user}\n" if user else "",
        serve=_command([*bundler, *_serve(launch, rank, start_seconds)]),
        status=_command([*bundler, *status]),
        start_seconds=start_seconds + 120,
        stop_seconds=STOP_SECONDS,
        log=home / ".bundler" / "run" / f"{server_name(launch.port, rank)}.log",
    )


def _serve(launch: ServerLaunch, rank: int, start_seconds: int) -> list[str]:
    """Return the words that serve as the user wished it, without the user."""
    software, wishes = launch.target.software, launch.wishes
    given = {
        "--env": software.environment,
        "--port": launch.port,
        "--python": software.python if software.probed else None,
        "--tp-size": wishes.tp_size,
        "--host": wishes.host,
        "--dist-init-addr": wishes.dist_init_addr,
        "--api-key-file": wishes.key_file and wishes.key_file.absolute(),
    }
    words = ["serve", "--model", launch.target.spec.name]
    repeated = [("--keep-env", name) for name in wishes.keep_env]
    repeated += [("--allow-launch", name) for name in wishes.allow_launch]
    for flag, value in [*given.items(), *repeated]:
        words += [] if value is None else [flag, str(value)]
    if wishes.nnodes > 1:
        words += ["--nnodes", str(wishes.nnodes), "--node-rank", str(rank)]
    words += ["--timeout", str(start_seconds), "--no-log"]
    return [*words, "--", *wishes.extra] if wishes.extra else words


def _command(words: Sequence[str]) -> str:
    """Quote a command line as systemd reads it."""
    return " ".join(_word(word) for word in words)


def _word(word: str) -> str:
    plain = word.replace("%", "%%").replace("$", "$$")
    if plain and not set(plain) & set(" \t\"'\\;"):
        return plain
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'
