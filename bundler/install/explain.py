"""Why an installer failed, told from its output and from what the mirror was asked for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bundler.errors import InstallError
from bundler.install.program import DECORATION
from bundler.store import REFILL

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from bundler.artifact import Artifact
    from bundler.install.program import Ended
    from bundler.store import Store

CAUSES = (
    (r"hash mismatch for ([^\s,]+)", "an artifact of the store is not what the lock promises: {}", REFILL),
    (r"no space left on device", "the disk is full", "free space on that disk; the same command goes on"),
    (
        r"disk quota exceeded",
        "the disk quota is used up",
        "raise this user's quota; the same command goes on",
    ),
    (
        r"too many open files",
        "the installer may not open as many files at once as it needs",
        "allow more in this shell: ulimit -n 4096; the same command goes on",
    ),
    (
        r"lock-?file version|unsupported lock|requires-pixi|newer version of pixi",
        "this pixi can't read the workspace",
        "name a newer pixi: BUNDLER_PIXI=/path/to/pixi",
    ),
    (
        r"target prefix cannot be longer than the placeholder prefix",
        "the destination's path is too long for the packages, whose own paths are replaced by it",
        "install to a shorter path",
    ),
    (
        r"__cuda",
        "the environment wants a CUDA driver that pixi doesn't see here",
        "say which to take for the GPU host's: CONDA_OVERRIDE_CUDA=12.8 before the same command",
    ),
    (
        r"read-only file system|permission denied",
        "a folder can't be written to",
        "run as the user to whom the folder belongs",
    ),
)
"""What a failed installer says, what that means here, and the way out; the first that is found is told."""


def damaged_of(ended: Ended, artifacts: Iterable[Artifact], store: Store) -> list[str]:
    """Return the damaged ones among the artifacts that a failed installer speaks of, a finding each.

    A flipped bit shows itself in many ways, as a bad checksum inside an archive or as one that can't be read,
    long before its hash is compared; so what the output names is hashed here.
    """
    # Messages are wrapped to the terminal's width, in the middle of names too.
    text = re.sub(rf"[\s{DECORATION}]", "", ended.text)
    named = [one for one in artifacts if any(word in text for word in _words(one))]
    return [f"{one.label}: {store.relative(one.url)}" for one in named if not store.verify(one)]


def _words(artifact: Artifact) -> tuple[str, ...]:
    """Return how an installer may name an artifact."""
    exact = f"{artifact.name}-{artifact.version}-{artifact.build}" if artifact.build else artifact.filename
    return artifact.filename, exact, f"{artifact.name}=={artifact.version}"


def explain(
    program: str, ended: Ended, where: Path, *, missing: Sequence[str] = (), damaged: Sequence[str] = ()
) -> InstallError:
    """Return the error for an installer that failed: its cause, where the output or the mirror tells it.

    :param program: what failed, as the message names it.
    :param where: the installation or the environment.
    :param missing: what it asked for and the store lacks, as ``HOST/PATH``.
    :param damaged: what :func:`damaged_of` found.
    """
    if missing:
        return InstallError(
            "artifacts that the lock names are not in the store", findings=missing, where=where, hint=REFILL
        )
    if damaged:
        return InstallError(
            "artifacts of the store are not what the lock promises",
            findings=damaged,
            where=where,
            hint=REFILL,
        )
    for pattern, meaning, hint in CAUSES:
        if match := re.search(pattern, ended.text, re.IGNORECASE):
            return InstallError(
                meaning.format(*match.groups()), findings=ended.said(), where=where, hint=hint
            )
    return InstallError(
        f"{program} failed with {ended.how}" if ended.code else f"{program} ended without an answer",
        findings=ended.said(),
        where=where,
        hint="the same command goes on where it stopped",
    )
