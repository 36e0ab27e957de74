"""A plan as people read it."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from bundler.common.units import duration_text, size_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bundler.collect.plan import Plan, PlannedEnvironment

COLUMNS = 80
"""What a plan keeps to."""


def plan_text(plan: Plan, *, every: bool = False) -> str:
    """Return a plan as people read it: what the target must have first.

    :param every: list every artifact too, in lines as long as they are.
    """
    lines = ["The target must have:", *(f"  {line}" for line in plan.target or ("nothing of its own",)), ""]
    for one in plan.environments:
        lines += [_environment_line(one), *_md5_line(one)]
    lines += [
        f"model {one.name}: {one.files} files, {size_text(one.size)}, from {one.origin}"
        + (f" at {one.revision}" if one.revision else "")
        + (f"; {size_text(one.missing)} to download" if one.missing else "; all here")
        + (", straight into the bundle" if one.missing and one.streamed else "")
        for one in plan.models
    ]
    lines += [f"  {one.left_out}" for one in plan.models if one.left_out]
    lines += ["", *_totals(plan)]
    lines = [short for line in lines for short in _wrapped(line)]
    if every:
        for environment in plan.environments:
            lines += ["", f"{environment.name}:", *_artifact_lines(environment)]
    return "\n".join(lines)


def _wrapped(line: str) -> list[str]:
    """Return a line in pieces that fit a screen; a word that is longer stays whole."""
    indent = "    " if line.startswith(" ") else "  "
    return textwrap.wrap(
        line, COLUMNS, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    ) or [""]


def _environment_line(one: PlannedEnvironment) -> str:
    words = [
        f"{name} {version}"
        for name, version in (("python", one.python), ("torch", one.torch), ("sglang", one.sglang))
        if version
    ]
    alias = f" ({', '.join(one.aliases)})" if one.aliases else ""
    known = sum(artifact.size or 0 for artifact in one.artifacts)
    unknown = sum(artifact.size is None for artifact in one.artifacts)
    size = size_text(known) + (f" and {unknown} of unknown size" if unknown else "")
    counts = f"{one.count('conda')} conda packages, {one.count('wheel')} wheels"
    if one.other_platforms:
        taken, *others = (one.declared_platforms.get(name, name) for name in one.all_platforms)
        words.append(f"for the platform {taken} (--platform takes another: {', '.join(others)})")
    return f"environment {one.name}{alias}: {counts}, {size}" + (f"; {', '.join(words)}" if words else "")


def _md5_line(one: PlannedEnvironment) -> Iterator[str]:
    if count := sum(artifact.md5 is not None for artifact in one.artifacts):
        yield (
            f"  of these the lock fixes {count} by an md5 alone: compared with it when fetched, "
            "and by the sha256 that they had then from there on"
        )


def _totals(plan: Plan) -> Iterator[str]:
    unknown = f", and {plan.unknown_sizes} files of unknown size" if plan.unknown_sizes else ""
    yield f"in all: {plan.files} files, {size_text(plan.size)}{unknown}"
    if not plan.missing_files and not plan.missing_size:
        yield "to download: nothing, all is here"
    else:
        files = f"{plan.missing_files} files of the lock, " if plan.missing_files else ""
        time = (
            f", about {duration_text(plan.seconds)} at the {size_text(plan.rate)}/s of the latest fetch"
            if plan.seconds is not None and plan.rate is not None
            else ", in a time unknown until something was fetched here"
        )
        yield f"to download: {files}{size_text(plan.missing_size)}{time}"
    known = ", of the sizes that are known" if plan.unknown_sizes else ""
    yield f"the bundle: {_ends(*plan.bundle)}{known}"
    yield f"the target's disk: {_ends(*plan.installed)}{known}, environments unpacked and runtime in it"
    for space in plan.space:
        verdict = "" if space.enough else "  NOT ENOUGH"
        yield (
            f"space at {space.path} for {', '.join(space.purposes)}: "
            f"{_ends(space.needed, space.most)} wanted, {size_text(space.free)} free{verdict}"
        )


def _ends(least: int, most: int) -> str:
    """Return both ends of an estimate, or one where they read alike."""
    low, high = size_text(least), size_text(most)
    return low if low == high else f"{low} to {high}"


def _artifact_lines(environment: PlannedEnvironment) -> Iterator[str]:
    for one in environment.artifacts:
        size = size_text(one.size) if one.size is not None else "unknown"
        digest = one.sha256 or (f"md5 {one.md5}" if one.md5 else "no sha256")
        here = "here" if one.present else "    "
        yield f"  {one.kind:5} {here} {size:>8}  {digest:64}  {one.name} {one.version}"
