"""Checking an installation's files against its receipt and its bundles' manifests."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bundler.archive.verify import Verified
from bundler.common.progress import SILENT
from bundler.errors import DamagedError
from bundler.installation import ARTIFACTS, waiting_of
from bundler.installed_files import recorded_files
from bundler.record import compare

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bundler.common.progress import Reporter
    from bundler.installation import Installation
    from bundler.record import Difference

_SHOWN = 40


def verify_installation(
    installation: Installation,
    *,
    deep: bool = False,
    threads: int | None = None,
    reporter: Reporter = SILENT,
) -> Verified:
    """Check the files and links that the bundles brought here.

    :param deep: read every file and compare its sha256; otherwise sizes and times are compared with the
        receipt, which finds what was changed, not what rotted on the disk.
    :param threads: files read at once.
    :raises DamagedError: naming each that is missing or differs.
    """
    root = installation.root
    entries = installation.entries
    kept = {path: entry for path, entry in entries.items() if not f"{path}/".startswith(f"{ARTIFACTS}/")}
    # A bundle of models alone brings no store that could have been pruned.
    pruned = installation.store_pruned and len(kept) < len(entries)
    if pruned:
        entries = kept
    files = [entry for entry in entries.values() if entry.kind == "file"]
    times = {file.path: file.mtime_ns for file in installation.receipt.files}
    differences = compare(
        root, entries.values(), times=None if deep else times, deep=deep, threads=threads, reporter=reporter
    )
    findings = sorted(map(_finding, differences))
    installed = list(_prefixes(installation)) if deep else []
    for prefix in installed:
        findings += _check_installed(root, prefix, threads, reporter)
    if findings:
        raise DamagedError(
            f"{len(findings)} of the installation's files are missing or differ",
            where=root,
            findings=[*findings[:_SHOWN], *(["and more"] if len(findings) > _SHOWN else [])],
            hint=f"bundler unpack BUNDLE {root} writes missing and differing files again; where only --deep "
            "saw the difference, delete the file first; of an environment delete its folder, then "
            f"bundler install {root}; of the runtime: sh BUNDLE/install.sh {root}",
        )
    waiting = waiting_of(root)
    how = "every file's content against its sha256" if deep else "sizes and times against the receipt"
    if installed:
        how += "; environments and runtime against the installers' records"
    return Verified(
        subject=str(root),
        files=len(files),
        bytes=sum(entry.size for entry in files) if deep else 0,
        checked=f"{how}; folders and links against the manifest"
        + ("; not the store, which was pruned" if pruned else ""),
        waiting=waiting.volumes if waiting else (),
    )


def _prefixes(installation: Installation) -> Iterator[Path]:
    """Yield the folders of what was installed: environments, and bundler's own runtime."""
    for one in installation.receipt.environments:
        yield installation.prefix(one.name)
    runtime = installation.home / "runtime"
    if runtime.is_dir():
        yield runtime


def _check_installed(root: Path, prefix: Path, threads: int | None, reporter: Reporter) -> Iterator[str]:
    """Compare an environment's files with what its installers recorded of them."""
    differing = compare(
        prefix,
        recorded_files(prefix),
        deep=True,
        follow=True,
        threads=threads,
        reporter=reporter,
        phase=f"verify {prefix.name}",
    )
    place = os.path.relpath(prefix, root)
    for line in sorted(map(_finding, differing)):
        yield f"{place}/{line}"


def _finding(difference: Difference) -> str:
    """Say what is wrong with a file."""
    entry = difference.entry
    what = {
        "missing": f"can't be found: {difference.problem}",
        "unreadable": f"can't be read: {difference.problem}",
        "kind": "is not a folder" if entry.kind == "dir" else "is not a file",
        "link": "is not the link it was",
        "size": f"has {difference.size} bytes, not {entry.size}",
        "time": "was changed after it was unpacked",
        "content": "differs from its sha256",
    }
    return f"{entry.path} {what[difference.kind]}"
