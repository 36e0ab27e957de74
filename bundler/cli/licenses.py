"""``bundler licenses``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bundler.cli.command import command
from bundler.cli.output import answer, named

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bundler.report.inventory import Inventory
    from bundler.report.licences import Licence

    Named = tuple[str, str, str, Licence]
    """Kind, name, version, licence."""


@command("licenses")
@click.argument("places", metavar="[BUNDLE…]", nargs=-1, type=click.Path(path_type=Path, exists=True))
def licenses_command(places: tuple[Path, ...]) -> None:
    """Say what of a bundle is copyleft, unknown, restricted, or forbids commercial use.

    Read are the packages' own metadata and the models' cards, out of the bundle. BUNDLE is a bundle's folder,
    or several disks' that hold one bundle together; without it, the one that is here.
    """
    from bundler.cli.progress import reporter
    from bundler.cli.report import conclude, open_bundle
    from bundler.report.inventory import take_inventory
    from bundler.report.libraries import needed

    with open_bundle(places) as bundle, needed():
        inventory = take_inventory(bundle, reporter())
        answer(_record(inventory), *_lines(inventory))
        conclude(inventory)


def _record(inventory: Inventory) -> dict[str, Any]:
    packages = [
        {
            "kind": one.kind,
            "name": one.name,
            "version": one.version,
            "build": one.build,
            "environments": one.environments,
            "problem": one.problem or None,
            **named(one.licence),
            "license_files": one.metadata.license_files,
        }
        for one in inventory.packages
    ]
    models = [
        {
            "kind": "model",
            "name": one.model.spec.name,
            "origin": one.model.origin,
            "version": one.model.revision,
            **named(one.licence),
            "license_files": one.model.license_files,
        }
        for one in inventory.models
    ]
    return {"bundle": inventory.bundle.name, "models": models, "packages": packages}


def _lines(inventory: Inventory) -> Iterator[str]:
    from bundler.report.licences import CONCERNS

    things = list(_named(inventory))
    for concern, meaning in CONCERNS.items():
        found = [one for one in things if one[3].concerns[:1] == (concern,)]
        yield f"{concern}: {len(found) or 'none'} ({meaning})"
        yield from _table(found)
    fine = [one for one in things if not one[3].concerns]
    yield f"permissive: {len(fine) or 'none'}"
    yield from _table(fine)


def _table(things: list[Named]) -> Iterator[str]:
    texts = [(kind, name, version) for kind, name, version, _ in things]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for kind, name, version, licence in things:
        stated = licence.stated or "not stated"
        said = stated if licence.expression == "NOASSERTION" else licence.expression
        yield f"  {kind:{widths[0]}}  {name:{widths[1]}}  {version:{widths[2]}}  {said}"


def _named(inventory: Inventory) -> Iterator[Named]:
    """Yield models and packages, each once, whether one or more environments or the runtime hold it."""
    for model in inventory.models:
        yield "model", model.model.spec.name, (model.model.revision or "")[:12], model.licence
    seen = {(one.kind, one.name, one.version): one for one in reversed(inventory.packages)}
    for (kind, name, version), one in sorted(seen.items(), key=lambda pair: (pair[0][1].lower(), pair[0])):
        yield kind, name, version, one.licence
