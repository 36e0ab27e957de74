"""``bundler repair``."""

from __future__ import annotations

from pathlib import Path

import click

from bundler.cli.command import command
from bundler.cli.options import threads_option
from bundler.cli.output import answer, say
from bundler.common.units import size_text


@command("repair")
@click.argument(
    "bundle", metavar="BUNDLE…", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True)
)
@click.option(
    "--to",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write the whole bundle, mended, to this folder, and leave the damaged one as it is.",
)
@threads_option
def repair_command(bundle: tuple[Path, ...], to: Path | None, threads: int | None) -> None:
    """Mend a damaged bundle by its parity volumes, whole missing files too.

    BUNDLE is a bundle's folder, or several disks' that hold one bundle together. Interrupted, the same
    command goes on.
    """
    from bundler.archive.parity_repair import repair_bundle
    from bundler.cli.progress import reporter

    folders = [_folder(place) for place in bundle]
    say(f"bundle: {', '.join(str(folder.absolute()) for folder in folders)}")
    repaired = repair_bundle(folders, to, threads=threads, reporter=reporter())
    places = ", ".join(repaired.folders)
    mended = f"mended {', '.join(repaired.damaged)}" if repaired.damaged else "nothing was damaged"
    written = (
        f"{size_text(repaired.written)} written to {places}" if repaired.written else "nothing was written"
    )
    answer(repaired, f"{repaired.name}: {mended}; {written}")


def _folder(place: Path) -> Path:
    """Return the folder that is meant: a bundle's may lack its manifest, which parity brings back."""
    from bundler.archive.bundle import find_bundle
    from bundler.archive.parity_advice import has_parity

    return place if has_parity(place) or (place / "manifest.json").is_file() else find_bundle(place)
