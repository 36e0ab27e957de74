"""``bundler diff``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bundler.cli.command import command
from bundler.cli.output import answer
from bundler.common.units import size_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bundler.report.differences import Differences, FileChanges

MARKS = {"added": "+", "removed": "-", "changed": "~"}
SHOWN_FILES = 20
"""Files of each kind of change that are named; --json names all."""


@command("diff")
@click.argument("before", metavar="A", type=click.Path(path_type=Path, exists=True))
@click.argument("after", metavar="B", type=click.Path(path_type=Path, exists=True))
def diff_command(before: Path, after: Path) -> None:
    """Say what differs between A and B, and what a delta from A to B would carry.

    Each is a bundle's folder, an installation, or a manifest.json that was carried alone. Only manifests are
    read, so one disk of several is enough.
    """
    from bundler.report.differences import compare_contents, contents_of

    found = compare_contents(contents_of(before), contents_of(after))
    answer(found, *_lines(found))


def _lines(found: Differences) -> Iterator[str]:
    yield f"A: {found.before}, {size_text(found.before_bytes)} unpacked"
    yield f"B: {found.after}, {size_text(found.after_bytes)} unpacked"
    yield f"packages: {_counts([one.change for one in found.packages])}"
    for one in found.packages:
        what = f"{one.environment}: {one.kind} {one.name}"
        yield f"  {MARKS[one.change]} {what} {_arrow(one.before, one.after)}"
    yield f"models: {_counts([one.change for one in found.models])}"
    for model in found.models:
        carried = f", {model.files} files, {size_text(model.bytes)}" if model.files else ""
        yield f"  {MARKS[model.change]} {model.name} {_arrow(model.before, model.after)}{carried}"
    yield from _file_lines(found.files)
    delta = found.delta
    yield (
        f"a delta would carry {size_text(delta.bytes)} of {size_text(delta.whole)}: {delta.files} files "
        "whose sha256 isn't in A (uncompressed)"
    )


def _file_lines(files: FileChanges) -> Iterator[str]:
    groups = (
        ("added", files.added, files.added_bytes),
        ("removed", files.removed, files.removed_bytes),
        ("changed", files.changed, files.changed_bytes),
    )
    counted = [f"{len(paths)} {word} ({size_text(size)})" for word, paths, size in groups if paths]
    yield f"files: {', '.join(counted) or 'no difference'}"
    for word, paths, _ in groups:
        yield from (f"  {MARKS[word]} {path}" for path in paths[:SHOWN_FILES])
        if len(paths) > SHOWN_FILES:
            yield f"  {MARKS[word]} and {len(paths) - SHOWN_FILES} more (--json names all)"


def _counts(words: list[str]) -> str:
    counted = [f"{words.count(word)} {word}" for word in MARKS if word in words]
    return ", ".join(counted) or "no difference"


def _arrow(before: str | None, after: str | None) -> str:
    if before is None or after is None or before == after:
        return after or before or ""
    return f"{before} → {after}"
