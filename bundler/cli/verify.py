"""``bundler verify``."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial as partial_of
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bundler.cli.command import command
from bundler.cli.options import threads_option
from bundler.cli.output import answer, named
from bundler.cli.trust import trust_options
from bundler.errors import BundlerError, PartialError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bundler.archive.bundle import Bundle
    from bundler.archive.trust import Trust
    from bundler.archive.verify import Verified
    from bundler.installation import Installation

Check = tuple[str, "Callable[[], Verified]"]


@command("verify")
@click.argument("places", metavar="[PATH…]", nargs=-1, type=click.Path(path_type=Path, exists=True))
@click.option(
    "--deep",
    is_flag=True,
    help="Of an installation, read every file, not sizes and times only; of a bundle, also what packing did.",
)
@click.option("--partial", is_flag=True, help="Of a bundle, check the volumes that are here.")
@trust_options
@threads_option
def verify_command(places: tuple[Path, ...], trust: Trust, **words: Any) -> None:
    """Check every byte of a bundle, or the files of an installation.

    PATH is a bundle's folder, or several disks' that hold one bundle together, or an installation; without
    it, the ones that are here. A part of a bundle that is sound as far as it's here ends with exit code 7.
    """
    from bundler.work.subjects import find_subjects

    bundles, installations = find_subjects(places, trust)
    if trust.sha256 is not None and not bundles:
        raise UsageError("--sha256 is a bundle's, and none is named here")
    with ExitStack() as stack:
        for bundle in bundles:
            stack.enter_context(bundle)
        results = [_run(name, check) for name, check in _checks(bundles, installations, **words)]
    sound = [line for _, problem, lines in results if problem is None for line in lines]
    answer({"subjects": [record for record, _, _ in results]}, *sound)
    for _, problem, _ in results:
        if problem is not None:
            raise problem
    if any(record.get("waiting") for record, _, _ in results):
        raise click.exceptions.Exit(PartialError.exit_code)


def _checks(
    bundles: list[Bundle],
    installations: list[Installation],
    *,
    deep: bool,
    partial: bool,
    threads: int | None,
) -> Iterator[Check]:
    from bundler.archive.verify import verify_bundle
    from bundler.cli.progress import reporter
    from bundler.work.verify import verify_installation

    shown = reporter()
    for bundle in bundles:
        check = partial_of(verify_bundle, bundle, threads=threads, partial=partial, deep=deep, reporter=shown)
        yield bundle.name, check
    for one in installations:
        yield str(one.root), partial_of(verify_installation, one, deep=deep, threads=threads, reporter=shown)


def _run(name: str, check: Callable[[], Verified]) -> tuple[dict[str, Any], BundlerError | None, list[str]]:
    """Run one check, so that a damaged bundle doesn't keep the next one from being checked.

    :returns: the record for programs, what is wrong, and the lines for people.
    """
    try:
        verified = check()
    except BundlerError as problem:
        record = {"subject": name, "ok": False, "problem": problem.what, "findings": list(problem.findings)}
        return record, problem, []
    return {"ok": True, **named(verified)}, None, _lines(verified)


def _short(lines: Sequence[str], most: int = 10) -> list[str]:
    return list(lines) if len(lines) <= most else [*lines[:most], f"and {len(lines) - most} more"]


def _lines(verified: Verified) -> list[str]:
    from bundler.common.units import size_text

    read = f", {size_text(verified.bytes)} read" if verified.bytes else ""
    sound = "sound"
    if verified.waiting and verified.volumes:
        here = verified.volumes - len(verified.waiting)
        sound = f"sound as far as it's here: {here} of {verified.volumes} volumes"
    lines = [f"{verified.subject}: {sound}, {verified.files} files{read}", f"  checked: {verified.checked}"]
    if verified.provenance is not None:
        lines.append(f"  signature: {verified.provenance.text}")
        lines.append(f"  sha256 of SHA256SUMS: {verified.provenance.sums_sha256}")
    lines += [f"  warning: {stranger}" for stranger in _short(verified.strangers)]
    if verified.waiting:
        word = (
            "not here, not checked" if verified.volumes else "another bundle is here in part, and waits for"
        )
        lines.append(f"  {word}: {', '.join(verified.waiting)}")
    return lines
