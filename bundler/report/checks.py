"""What is known of a bundle's soundness, and what isn't: for who signs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bundler.archive.sums import SIGNATURE, SUMS
from bundler.errors import BundlerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bundler.archive.bundle import Bundle
    from bundler.archive.verify import Verified
    from bundler.report.inventory import Inventory

State = Literal["yes", "partly", "no"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at, or wasn't."""

    name: str
    state: State
    text: str


def checks_of(inventory: Inventory, verified: Verified | BundlerError | None) -> list[Check]:
    """Return what is known, in the order in which it is built on one another.

    :param verified: what a check of every byte just now covered, or found; ``None`` where none was made.
    """
    bundle = inventory.bundle
    return [
        Check("manifest", "yes", f"manifest.json is the one that {SUMS} names, and describes a safe tree"),
        _complete(bundle),
        _bytes(verified),
        _publishers(inventory),
        _rehearsed(bundle),
        _signed(bundle),
        *_metadata(inventory),
    ]


def _complete(bundle: Bundle) -> Check:
    count = len(bundle.manifest.volumes)
    short = [
        volume.name
        for volume in bundle.manifest.volumes
        if volume.name in bundle.volumes and bundle.volumes[volume.name].size() != volume.size
    ]
    if short:
        return Check("volumes", "no", f"not of the size that the manifest says: {', '.join(short)}")
    if bundle.missing:
        there = count - len(bundle.missing)
        names = ", ".join(bundle.missing[:6]) + (" …" if len(bundle.missing) > 6 else "")
        return Check("volumes", "partly", f"{there} of {count} are here; not here: {names}")
    return Check("volumes", "yes", f"{count} of {count} are here, each of its size")


def _bytes(verified: Verified | BundlerError | None) -> Check:
    if verified is None:
        return Check(
            "every byte",
            "no",
            "not compared for this sheet; bundler verify does, or bundler report --verify",
        )
    if isinstance(verified, BundlerError):
        found = "; ".join(verified.findings[:5]) + (" …" if len(verified.findings) > 5 else "")
        return Check("every byte", "no", f"compared just now: {verified.what}: {found}")
    waiting = f"; not here: {', '.join(verified.waiting)}" if verified.waiting else ""
    return Check(
        "every byte", "partly" if waiting else "yes", f"compared just now: {verified.checked}{waiting}"
    )


def _publishers(inventory: Inventory) -> Check:
    folders = [one.model.spec.name for one in inventory.models if one.model.origin == "folder"]
    if folders:
        return Check(
            "publishers' hashes",
            "partly",
            f"no publisher vouches for the files of {', '.join(folders)}: they came from a folder",
        )
    if inventory.unhashed:
        shown = ", ".join(inventory.unhashed)
        return Check("publishers' hashes", "partly", f"the lock names none for {shown}: allowed when packed")
    if inventory.md5_only:
        shown = ", ".join(inventory.md5_only)
        return Check(
            "publishers' hashes",
            "partly",
            f"the lock names an md5 alone for {shown}: compared with it when fetched",
        )
    return Check(
        "publishers' hashes", "yes", "pack compares each file with what the lock or the hub promises"
    )


def _rehearsed(bundle: Bundle) -> Check:
    seen = bundle.manifest.rehearsal
    if not bundle.manifest.environments:
        return Check("rehearsal", "yes", "nothing to rehearse: no environment is carried")
    if seen.status != "passed":
        return Check("rehearsal", "no", f"not rehearsed: {seen.reason or 'no reason is given'}")
    imports = f", imported {', '.join(seen.imports)}" if seen.imports else ""
    return Check(
        "rehearsal", "yes", f"installed by {seen.installer}, network cut by {seen.isolation}{imports}"
    )


def _signed(bundle: Bundle) -> Check:
    known = bundle.provenance
    if known.signature is not None:
        return Check("signature", "yes", known.signature_text)
    if known.unchecked_signature:
        return Check(
            "signature", "partly", f"{SIGNATURE} is here; whose it is was not checked for this sheet"
        )
    return Check(
        "signature", "no", f"there is no {SIGNATURE}: compare the digest on this sheet with the disk's"
    )


def _metadata(inventory: Inventory) -> Iterator[Check]:
    count = len(inventory.packages)
    if inventory.damaged:
        shown = "; ".join(inventory.damaged[:5]) + (" …" if len(inventory.damaged) > 5 else "")
        yield Check("packages' metadata", "no", shown)
    elif inventory.unread:
        some = "; ".join(dict.fromkeys(inventory.unread))
        yield Check("packages' metadata", "partly", f"not all of it could be read: {some}")
    elif count:
        yield Check("packages' metadata", "yes", f"read out of the {count} packages themselves")
