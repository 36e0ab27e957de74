"""Checking an installation's files against its receipt and its bundles' manifests."""

from __future__ import annotations

import stat
from contextlib import closing
from typing import TYPE_CHECKING

from bundler.archive.verify import Verified
from bundler.common.digest import sha256_of
from bundler.common.progress import SILENT
from bundler.common.threads import default_threads, in_order
from bundler.errors import DamagedError
from bundler.installation import ARTIFACTS

if TYPE_CHECKING:
    from pathlib import Path

    from bundler.common.progress import Reporter
    from bundler.installation import Installation
    from bundler.manifest import Entry

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
    :param threads: ``None``: one for each processor.
    :raises DamagedError: naming each that is missing or differs.
    """
    root = installation.root
    entries = {entry.path: entry for manifest in installation.manifests for entry in manifest.tree}
    kept = {path: entry for path, entry in entries.items() if not f"{path}/".startswith(f"{ARTIFACTS}/")}
    # A bundle of models alone brings no store that could have been pruned.
    pruned = installation.store_pruned and len(kept) < len(entries)
    if pruned:
        entries = kept
    files = [entry for entry in entries.values() if entry.kind == "file"]
    times = {file.path: file.mtime_ns for file in installation.receipt.files}
    findings = [
        finding
        for entry in entries.values()
        if (finding := _finding(root, entry, None if deep else times.get(entry.path)))
    ]
    size = 0
    if deep:
        broken = {finding.partition(" ")[0] for finding in findings}
        sound = [entry for entry in files if entry.path not in broken]
        size = sum(entry.size for entry in sound)
        findings += _differing(root, sound, threads or default_threads(), reporter)
    if findings:
        raise DamagedError(
            f"{len(findings)} of the installation's files are missing or differ",
            where=root,
            findings=[*findings[:_SHOWN], *(["and more"] if len(findings) > _SHOWN else [])],
            hint=f"bundler unpack BUNDLE {root} writes missing and differing files again; where only --deep "
            "saw the difference, delete the file first",
        )
    how = "every file's content against its sha256" if deep else "sizes and times against the receipt"
    return Verified(
        subject=str(root),
        files=len(files),
        bytes=size,
        checked=f"{how}; folders and links against the manifest"
        + ("; not the store, which was pruned" if pruned else ""),
    )


def _finding(root: Path, entry: Entry, modified: int | None) -> str | None:
    """Say what is wrong with an entry without reading its content, or ``None``."""
    try:
        there = (root / entry.path).lstat()
        if entry.kind == "link":
            same = stat.S_ISLNK(there.st_mode) and str((root / entry.path).readlink()) == entry.target
            return None if same else f"{entry.path} is not the link it was"
    except OSError as problem:
        return f"{entry.path} can't be found: {problem.strerror}"
    if entry.kind == "dir":
        return None if stat.S_ISDIR(there.st_mode) else f"{entry.path} is not a folder"
    if not stat.S_ISREG(there.st_mode):
        return f"{entry.path} is not a file"
    if there.st_size != entry.size:
        return f"{entry.path} has {there.st_size} bytes, not {entry.size}"
    if modified is not None and there.st_mtime_ns != modified:
        return f"{entry.path} was changed after it was unpacked"
    return None


def _differing(root: Path, files: list[Entry], threads: int, reporter: Reporter) -> list[str]:
    findings = []
    with reporter.phase("verify", sum(entry.size for entry in files)) as meter:

        def digest(entry: Entry) -> str | OSError:
            try:
                return sha256_of(root / entry.path, meter.advance)
            except OSError as problem:
                return problem

        with closing(in_order(digest, files, threads, "verify")) as results:
            for entry, found in results:
                if isinstance(found, OSError):
                    findings.append(f"{entry.path} can't be read: {found.strerror}")
                elif found != entry.sha256:
                    findings.append(f"{entry.path} differs from its sha256")
    return findings
