"""The workspace that a bundle carries, read where it lies, before anything is unpacked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bundler.archive.stored_file import FrameCache, open_stored
from bundler.errors import BundlerError
from bundler.host.facts import virtual_packages
from bundler.lockfile import read_lock
from bundler.pixi_manifest import NAMES, read_manifest
from bundler.platforms import pixis_choice
from bundler.workspace import LOCK, Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bundler.archive.bundle import Bundle
    from bundler.host.facts import HostFacts

LARGEST = 64 * 2**20
"""Bytes of a lock or manifest that is read; the largest locks known have a tenth."""


def carried_workspace(bundle: Bundle) -> Workspace | None:
    """Return the workspace in a bundle, its environments on the platforms that they are carried for.

    :returns: ``None`` where it has none, or it can't be read yet; the unpack itself says why.
    """
    held = {entry.path: entry for entry in bundle.manifest.tree if entry.kind == "file"}
    name = next((name for name in NAMES if name in held), None)
    if name is None or LOCK not in held or max(held[name].size, held[LOCK].size) > LARGEST:
        return None
    cache = FrameCache(bundle)
    try:
        texts = {one: open_stored(cache, held[one]).read() for one in (name, LOCK)}
        manifest = read_manifest(Path(name), texts[name])
        lock = read_lock(Path(LOCK), texts[LOCK])
    except BundlerError:
        return None
    platforms = {one.name: one.platform for one in bundle.manifest.environments}
    return Workspace(Path(), Path(name), manifest, lock, platforms)


def other_platforms(bundle: Bundle, host: HostFacts) -> Iterator[str]:
    """Say where pixi, started on a GPU host, would take another of the lock's platforms than is carried."""
    if not host.driver_cuda or (workspace := carried_workspace(bundle)) is None:
        return
    names = [one.name for one in bundle.manifest.environments]
    for environment in (workspace.environments[name] for name in names if name in workspace.environments):
        taken = pixis_choice(environment.candidates, virtual_packages(host))
        carried = next((one for one in environment.candidates if one.name == environment.platform), None)
        if taken and carried and taken != carried:
            yield (
                f"platform of {environment.name}: the bundle carries {carried.words}; of this host's driver "
                f"(CUDA {host.driver_cuda}) pixi takes {taken.words}; installed is what is carried; for the "
                f"other, pack with --platform {taken.declared}, or --target HOST.json of `bundler doctor "
                "--describe` here"
            )
