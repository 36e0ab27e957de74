"""``bundler models``: what has a manifest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bundler.cli.command import command
from bundler.cli.output import answer, named
from bundler.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bundler.collect.models.specs import KnownSpec


@command("models")
@click.option(
    "-C",
    "--workspace",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    show_default="this folder",
    help="The folder whose manifests come before those shipped.",
)
def models_command(workspace: Path) -> None:
    """List the models that have a manifest: names, sources, and the GPUs they need."""
    from bundler.collect.models.specs import known_specs, manifest_folders

    known, problems = known_specs(manifest_folders(workspace))
    paragraphs = "\n\n".join(_paragraph(one, workspace) for one in known) or "no model has a manifest here"
    answer({"models": [_record(one) for one in known]}, *paragraphs.split("\n"))
    _raise(problems)


def _raise(problems: Sequence[InputError]) -> None:
    """End with the manifests that can't be read, after those that can were listed.

    :raises InputError: naming each of them.
    """
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise InputError(
            "manifests that can't be read",
            findings=[f"{one.where}: {', '.join(one.findings) or one.what}" for one in problems],
        )


def _record(known: KnownSpec) -> dict[str, Any]:
    return {"manifest": known.path, **named(known.spec)}


def _paragraph(known: KnownSpec, workspace: Path) -> str:
    from bundler.host.fit import fit_text

    spec = known.spec
    names = f" (also {', '.join(spec.aliases)})" if spec.aliases else ""
    lines = [f"{spec.name}{names}: {spec.description}".rstrip(": ")]
    lines += [f"  from   {line}" for line in _sources(known, workspace)]
    gpus = " or ".join(fit_text(fit) for fit in spec.requires.gpus)
    lines += [f"  needs  {gpus}"] if gpus else []
    lines += [f"  note   {spec.requires.advice}"] if spec.requires.advice else []
    return "\n".join(lines)


def _sources(known: KnownSpec, workspace: Path) -> list[str]:
    source = known.spec.source
    lines = []
    for kind, place in (("modelscope", source.modelscope), ("huggingface", source.huggingface)):
        if place is not None:
            revision = f"@{place.revision}" if place.revision else ""
            lines.append(f"{kind}:{place.id}{revision}" + ("" if place.confirmed else " (unconfirmed id)"))
    if source.folder is not None:
        lines.append(f"folder {(known.base(workspace) / source.folder).resolve()}")
    return lines
