"""Whether ``bundler repair`` would mend a damaged bundle, for the message that says it is damaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bundler.archive.parity_advice import repair_command
from bundler.archive.parity_found import find_protected
from bundler.archive.parity_scan import damaged_names, refuse_lost, scan
from bundler.common.progress import SILENT
from bundler.errors import BundlerError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from bundler.common.progress import Reporter


def prospect(
    problem: BundlerError, folders: Sequence[Path], *, threads: int | None, reporter: Reporter = SILENT
) -> None:
    """Read a damaged bundle once more, and let the error say whether parity mends it."""
    try:
        bundle = find_protected(folders)
        scans = scan(bundle, threads=threads, reporter=reporter)
        refuse_lost(bundle, scans)
    except BundlerError as beyond:
        problem.findings += ("its parity can't mend that:", *beyond.findings)
        problem.hint = beyond.hint
        return
    names = sorted(name for found in scans for name in damaged_names(found))
    if names:
        problem.hint = f"its parity mends {_named(names)}: {repair_command(folders)}"


def _named(names: Iterable[str], most: int = 10) -> str:
    every = list(names)
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")
