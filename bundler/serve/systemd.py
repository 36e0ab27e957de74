"""systemd units: one for each node, restarted when it fails, counted as started when it is ready."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from string import Template
from typing import TYPE_CHECKING

from bundler.serve.server_record import server_name

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

START_SECONDS = 3600
STOP_SECONDS = 90


@dataclass(frozen=True, slots=True)
class UnitSettings:
    """What a unit is made of."""

    root: Path
    """The installation."""
    bundler: Sequence[str]
    """The words that run bundler."""
    model: str
    environment: str | None
    port: int
    arguments: Sequence[str] = ()
    """Words for ``bundler serve``, before ``--``."""
    extra: Sequence[str] = ()
    """Words for SGLang."""
    user: str | None = None
    nnodes: int = 1
    start_seconds: int = START_SECONDS


def unit_name(settings: UnitSettings, rank: int) -> str:
    """Return a unit's file name: ``bundler-glm-4.7.service``, with the rank where there are several nodes."""
    words = "".join(
        character if character.isalnum() or character in "-_." else "-" for character in settings.model
    )
    node = f"-rank{rank}" if settings.nnodes > 1 else ""
    return f"bundler-{words.lower()}{node}.service"


def unit(settings: UnitSettings, rank: int = 0) -> str:
    """Return the text of the unit of one node."""
    serve = ["serve", "--model", settings.model]
    if settings.environment:
        serve += ["--env", settings.environment]
    serve += ["--port", str(settings.port), *settings.arguments]
    if settings.nnodes > 1:
        serve += ["--nnodes", str(settings.nnodes), "--node-rank", str(rank)]
    serve += ["--timeout", str(settings.start_seconds), "--quiet"]
    if settings.extra:
        serve += ["--", *settings.extra]
    status = ["status", "--wait", str(settings.start_seconds), "--port", str(settings.port)]
    status += ["--node-rank", str(rank)]
    template = resources.files("bundler.serve").joinpath("data/bundler.service").read_text("utf-8")
    return Template(template).substitute(
        model=settings.model,
        port=settings.port,
        node=f", node rank {rank} of {settings.nnodes}" if settings.nnodes > 1 else "",
        root=_path(str(settings.root)),
        user=f"User={settings.user}\n" if settings.user else "",
        serve=_command([*settings.bundler, *serve]),
        status=_command([*settings.bundler, *status]),
        start_seconds=settings.start_seconds + 120,
        stop_seconds=STOP_SECONDS,
        log=settings.root / ".bundler" / "run" / f"{server_name(settings.port, rank)}.log",
    )


def _command(words: Sequence[str]) -> str:
    """Quote a command line as systemd reads it."""
    return " ".join(_word(word) for word in words)


def _word(word: str) -> str:
    plain = word.replace("%", "%%").replace("$", "$$")
    if plain and not set(plain) & set(" \t\"'\\;"):
        return plain
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _path(path: str) -> str:
    return path.replace("%", "%%")
