"""The first step of ``pack``: the plan, and what it refuses."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bundler.common.units import size_text
from bundler.errors import PreflightError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from bundler.collect.models.source import ModelSource
    from bundler.collect.plan import ModelListing, Plan
    from bundler.work.selection import Selection
    from bundler.workspace import EnvironmentLock

FAT_FILE = 2**32 - 1
"""Bytes of the largest file on FAT32."""


def make_plan(
    selection: Selection,
    folders: Sequence[Path],
    *,
    stream: bool = False,
    parity: Callable[[int], int] = lambda _: 0,
    rehearsed: bool = True,
) -> Plan:
    """Plan the bundle; hosts and hubs are asked for what isn't known here.

    :param folders: the bundle's own folders. Of several disks none has to hold all of it.
    :param stream: the weights are not kept on this host's disk.
    :param parity: gives the bytes of parity volumes for those of the volumes that they protect.
    :param rehearsed: whether the environments will be rehearsed.
    :raises BundlerError: a hub or a folder failed.
    """
    listings = listed_models(selection.models, selection.weights)
    if stream:
        listings = [msgspec.structs.replace(one, missing=one.size, streamed=True) for one in listings]
    output = folders[0] if len(folders) == 1 else None
    return planned(
        selection.root, selection.fetched, listings, output=output, parity=parity, rehearsed=rehearsed
    )


def planned(
    root: Path,
    environments: Sequence[EnvironmentLock],
    models: Sequence[ModelListing],
    *,
    offline: bool = False,
    output: Path | None = None,
    parity: Callable[[int], int] = lambda _: 0,
    rehearsed: bool = True,
) -> Plan:
    """Make the plan, asking hosts for sizes unless that is not wanted or nothing is to be asked.

    :param root: the workspace's folder.
    :param output: the folder of the bundle, whose space is weighed too.
    """
    from bundler.collect.network import open_network
    from bundler.collect.plan import make_plan
    from bundler.collect.sizes import known_sizes
    from bundler.store import Store

    store = Store.of(root)
    wanted = {artifact.url: artifact for one in environments for artifact in one.artifacts}
    if offline or len(known_sizes(wanted.values(), store)) == len(wanted):
        return make_plan(
            environments, store, models=models, output=output, parity=parity, rehearsed=rehearsed
        )
    with contextlib.closing(open_network(root)) as network:
        return make_plan(
            environments,
            store,
            models=models,
            output=output,
            parity=parity,
            rehearsed=rehearsed,
            network=network,
        )


def listed_models(sources: Iterable[ModelSource], weights: Path) -> list[ModelListing]:
    """Ask each source what it has, and see what of it is here.

    :raises BundlerError: a hub or a folder failed.
    """
    return [_listed(source, weights) for source in sources]


def _listed(source: ModelSource, weights: Path) -> ModelListing:
    from bundler.collect.models.source import estimate
    from bundler.collect.plan import ModelListing
    from bundler.host.fit import needs_text

    listing = source.listing
    return ModelListing(
        name=source.spec.name,
        origin=source.origin,
        files=len(listing.files),
        size=listing.size,
        missing=sum(file.size for file in source.missing(weights)),
        place=weights,
        revision=listing.revision,
        left_out=listing.left_out_text,
        advice=tuple(needs_text(source.spec, estimate(source))),
    )


def check_space(plan: Plan) -> None:
    """Refuse what the disks here can't hold.

    :raises PreflightError: naming each file system.
    """
    tight = [
        f"{space.path}: {', '.join(space.purposes)} take {size_text(space.needed)} or more, "
        f"{size_text(space.free)} are free"
        for space in plan.space
        if not space.enough
    ]
    if tight:
        raise PreflightError(
            "too little disk space",
            findings=tight,
            hint="free some, write the bundle elsewhere with -o DISK, or take --stream for the weights",
        )


def check_volume_size(plan: Plan, folders: Iterable[Path], volume_size: int) -> None:
    """Refuse volumes that a disk's file system can't hold, before anything is fetched.

    :raises PreflightError: naming the disk.
    """
    if min(plan.size, volume_size) <= FAT_FILE:
        return
    for folder in folders:
        if file_system(folder) in ("vfat", "msdos"):
            raise PreflightError(
                "the disk is formatted as FAT, which takes no file of 4 GiB or more",
                where=folder,
                hint="add --volume-size 3900MiB, or format the disk as exFAT or ext4",
            )


def file_system(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str | None:
    """Return the type of the file system that a folder is or would be on, as the kernel calls it.

    :param mounts: the kernel's table of mounts.
    """
    place = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    device = place.stat().st_dev
    for line in mounts.read_text(errors="replace").splitlines():
        about, _, kind = line.partition(" - ")
        if about.split()[2] == f"{os.major(device)}:{os.minor(device)}":
            return kind.split()[0]
    return None


def check_target(selection: Selection, target: Path) -> None:
    """Refuse what won't run on a described host.

    :param target: what ``bundler doctor --describe`` wrote there.
    :raises PreflightError: with a finding for each check that fails.
    """
    from bundler.collect.models.source import estimate
    from bundler.host.doctor import examine_all
    from bundler.host.facts import read_target
    from bundler.manifest import Environment, Model

    environments = [
        Environment(name=name, cuda=stack.cuda, torch=stack.torch, sglang=stack.sglang, glibc=stack.glibc)
        for name, stack in ((one.name, one.stack) for one in selection.environments)
    ]
    models = [
        Model(spec=one.spec, path="", origin=one.origin, facts=estimate(one)) for one in selection.models
    ]
    findings = examine_all(read_target(target), environments, models)
    failed = [finding.line for finding in findings if finding.level == "fail"]
    if failed:
        raise PreflightError(
            "this won't run on the described host",
            where=target,
            findings=failed,
            hint="choose another environment or model, or leave --target out to pack it regardless",
        )
