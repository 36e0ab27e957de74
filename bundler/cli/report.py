"""``bundler report``: the transfer sheet, and bills of materials."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bundler.archive.trust import ASK_NOTHING
from bundler.cli.command import command
from bundler.cli.output import MANNER, answer, show_text
from bundler.cli.trust import trust_options
from bundler.errors import BundlerError, DamagedError, PartialError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bundler.archive.bundle import Bundle
    from bundler.archive.trust import Trust
    from bundler.archive.verify import Verified
    from bundler.report.inventory import Inventory

ENDINGS = {None: "-transfer-sheet.html", "cyclonedx": ".cdx.json", "spdx": ".spdx.json"}
"""What a report's file is called after the bundle's name, by the kind of report."""
STANDARD_OUTPUT = "-"


@command("report")
@click.argument("places", metavar="[BUNDLE…]", nargs=-1, type=click.Path(path_type=Path, exists=True))
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="The file to write, or - for standard output.  [default: NAME-transfer-sheet.html here]",
)
@click.option(
    "--sbom",
    "kind",
    type=click.Choice(["cyclonedx", "spdx"]),
    help="Write a bill of materials in JSON instead.",
)
@click.option("--verify", is_flag=True, help="Compare every byte first, and say so on the sheet.")
@trust_options
def report_command(
    places: tuple[Path, ...], output: str | None, kind: str | None, verify: bool, trust: Trust
) -> None:
    """Write the sheet that is signed before a bundle leaves the building: one HTML page.

    BUNDLE is a bundle's folder, or several disks' that hold one bundle together; without it, the one that is
    here. What can't be read of it is named on the sheet, and the exit code tells. Who signed it is said where
    allowed signers are named.
    """
    from bundler.cli.progress import reporter
    from bundler.report.inventory import take_inventory
    from bundler.report.libraries import needed

    with open_bundle(places, trust) as bundle, needed():
        target = output or f"{bundle.name}{ENDINGS[kind]}"
        _check_place(target, bundle)
        verified = _verify(bundle) if verify else None
        inventory = take_inventory(bundle, reporter())
        _write(target, _rendered(kind, inventory, verified))
        if target != STANDARD_OUTPUT:
            answer({"bundle": bundle.name, "file": target, "kind": kind or "sheet"}, target)
        conclude(inventory)
        if isinstance(verified, BundlerError):
            raise verified


def open_bundle(places: Sequence[Path], trust: Trust = ASK_NOTHING) -> Bundle:
    """Open the one bundle that is meant.

    :param trust: what is asked of it.
    :raises UntrustedError: it isn't what is asked for.
    :raises UnknownNameError: none is there.
    """
    from bundler.archive.bundle import Bundle, find_bundle

    return Bundle.open([find_bundle(place) for place in places] or [find_bundle()], trust)


def conclude(inventory: Inventory) -> None:
    """End with the exit code that what couldn't be read deserves.

    :raises DamagedError: something is here and isn't what the bundle says.
    :raises PartialError: volumes aren't here, and packages' metadata with them.
    """
    where = ", ".join(map(str, inventory.bundle.folders))
    if inventory.damaged:
        raise DamagedError(
            "not all of the bundle can be read; what can be is told above or in the file",
            where=where,
            findings=inventory.damaged[:20],
            hint="bundler verify names all that is damaged; copy the volumes again",
        )
    if inventory.unread:
        raise PartialError(
            f"licences are unread: volumes are not here: {', '.join(inventory.bundle.missing)}",
            where=where,
            hint="name every folder that holds volumes: DISK1 DISK2",
        )


def _verify(bundle: Bundle) -> Verified | BundlerError:
    """Compare every byte that is here; damage is for the sheet to tell, so it isn't raised."""
    from bundler.archive.verify import verify_bundle
    from bundler.cli.progress import reporter

    try:
        return verify_bundle(bundle, partial=True, reporter=reporter())
    except BundlerError as problem:
        return problem


def _rendered(kind: str | None, inventory: Inventory, verified: Verified | BundlerError | None) -> str:
    made = datetime.now(UTC).replace(microsecond=0)
    if kind == "cyclonedx":
        from bundler.report.cyclonedx_bill import render_cyclonedx

        return render_cyclonedx(inventory, made)
    if kind == "spdx":
        from bundler.report.spdx_bill import render_spdx

        return render_spdx(inventory, made)
    from bundler.report.sheet import render_sheet

    return render_sheet(inventory, f"{made:%Y-%m-%d %H:%M} UTC", verified)


def _check_place(target: str, bundle: Bundle) -> None:
    """Refuse a place inside the bundle: ``verify`` warns of a file there that the sums don't list.

    :raises UsageError: it is one, or standard output where the answer for programs goes.
    """
    if target == STANDARD_OUTPUT and MANNER.json:
        raise UsageError("standard output can't take both report and --json", hint="name a file: -o FILE")
    folder = Path(target).absolute().parent.resolve()
    if target != STANDARD_OUTPUT and folder in [one.resolve() for one in bundle.folders]:
        raise UsageError(
            "the report can't lie in the bundle's own folder: SHA256SUMS doesn't list it",
            where=folder,
            hint="name another place: -o FILE",
        )


def _write(target: str, text: str) -> None:
    from bundler.common.durable import write_atomically

    if target == STANDARD_OUTPUT:
        show_text(text)
    else:
        write_atomically(Path(target), text.encode())
