"""What an update carries on: all that an installation has and the new bundle doesn't name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from bundler.archive.donor import Donor
from bundler.archive.target import Target
from bundler.common.durable import write_atomically
from bundler.errors import DestinationError, InputError
from bundler.installation import (
    BUNDLES,
    PARTIAL,
    WEIGHTS,
    Installation,
    Receipt,
    SeenFile,
    counts,
    environment_path,
    write_receipt,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from bundler.installation import UnpackedBundle
    from bundler.manifest import Entry, Manifest


def differs(entry: Entry, other: Entry | None) -> bool:
    """Say whether a file of a path is another one elsewhere."""
    return other is not None and entry.kind == "file" and entry.sha256 != other.sha256


def carry_on(old: Installation, root: Path, manifest: Manifest) -> None:
    """Bring what a generation has and a bundle doesn't name into the next.

    Of an older bundle whose lock or files the new one replaces, the models that the new one doesn't bring.

    :param root: the next generation's folder, in which the bundle is unpacked.
    :raises DestinationError: a file that is to be carried on was changed or removed.
    """
    new = {entry.path: entry for entry in manifest.tree}
    named = {model.spec.name for model in manifest.models}
    bundles: list[UnpackedBundle] = []
    entries: dict[str, Entry] = {}
    for bundle, one in zip(old.receipt.bundles, old.manifests, strict=True):
        kept = _kept_of(bundle, one, new, named)
        if kept is None:
            continue
        bundles.append(kept)
        entries |= {entry.path: entry for entry in one.tree if counts(entry.path, kept.gone)}
        name = f"{BUNDLES}/{bundle.manifest_sha256}.json"
        write_atomically(root / name, (old.root / name).read_bytes())
    files = _take(Donor(old), root, [entry for path, entry in sorted(entries.items()) if path not in new])
    _merge(root, bundles, files)


def _merge(root: Path, bundles: Sequence[UnpackedBundle], files: Sequence[SeenFile]) -> None:
    """Write the receipt of what was carried on, beside what an earlier run wrote."""
    try:
        have = Installation(root, follow=False).receipt
    except InputError:
        have = Receipt()
    carried = {one.manifest_sha256 for one in bundles}
    others = (one for one in have.bundles if one.manifest_sha256 not in carried)
    seen = {file.path: file for file in (*have.files, *files)}
    write_receipt(
        root,
        msgspec.structs.replace(
            have, bundles=(*bundles, *others), files=tuple(seen[path] for path in sorted(seen))
        ),
    )


def _kept_of(
    bundle: UnpackedBundle, manifest: Manifest, new: Mapping[str, Entry], named: set[str]
) -> UnpackedBundle | None:
    """Return what stays of an older bundle; ``None`` where nothing does."""
    counting = [entry for entry in manifest.tree if counts(entry.path, bundle.gone)]
    if not any(differs(entry, new.get(entry.path)) for entry in counting):
        return bundle
    models = [
        model.path
        for model in manifest.models
        if model.spec.name not in named and counts(model.path, bundle.gone)
    ]
    if not models:
        return None
    gone = {*bundle.gone, *(environment_path(one.name) for one in manifest.environments)}
    for entry in counting:
        if counts(entry.path, models):
            top, *below = entry.path.split("/")
            # Of the folder of all models only the single ones go.
            gone |= {top} if top != WEIGHTS else {f"{top}/{below[0]}"} if below else set()
    return msgspec.structs.replace(bundle, gone=tuple(sorted(gone)))


def _take(donor: Donor, root: Path, entries: Sequence[Entry]) -> list[SeenFile]:
    """Bring entries of another generation here; return the files as they are now."""
    found = []
    with Target(root) as target:
        folders = sorted({parent for entry in entries for parent in _parents(entry)})
        for folder in folders:
            target.make_folder(folder)
            target.make_folder(f"{PARTIAL}/{folder}")
        for entry in entries:
            if entry.kind == "link":
                target.make_link(entry.path, entry.target)
            elif entry.kind == "file":
                found.append(SeenFile(entry.path, entry.size, _taken(donor, target, entry), entry.sha256))
        for folder in folders:
            target.sync_folder(folder)
        target.clear_partials()
    return found


def _taken(donor: Donor, target: Target, entry: Entry) -> int:
    """Bring one file here, or keep what an earlier run brought; return its modification time."""
    path, there = donor.find(entry), target.status(entry.path)
    if there is not None and path is not None and path.lstat().st_mtime_ns == there.st_mtime_ns:
        return there.st_mtime_ns
    modified = target.take(entry, path) if path is not None else None
    if modified is None:
        raise DestinationError(
            f"{entry.path} is to be carried on, and was changed or removed since it was unpacked",
            where=target.root,
            hint="unpack the bundle that brought it again, to the installation; then update it",
        )
    return modified


def _parents(entry: Entry) -> Iterator[str]:
    parts = entry.path.split("/")
    for end in range(1, len(parts) + (entry.kind == "dir")):
        yield "/".join(parts[:end])
