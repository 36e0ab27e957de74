"""What parity starts from: the manifest, the digests and the files, as far as they are there."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bundler import manifest as manifests
from bundler.archive import parity, sums, validate
from bundler.archive.parity import ANNOUNCEMENT, ParityHeader
from bundler.common.digest import sha256_of
from bundler.common.durable import open_plain, read_plain
from bundler.errors import DamagedError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from bundler.archive.parity import CoveredFile, ParityGroup
    from bundler.manifest import Manifest


@dataclass(frozen=True)
class ProtectedBundle:
    """A bundle with parity, known whatever of its files is damaged."""

    manifest: Manifest
    header: ParityHeader
    """What its parity volumes begin with, which is also what isn't covered by them."""
    digests: Mapping[str, str]
    """Of all files but the parity volumes, by name."""
    groups: Sequence[ParityGroup]
    folders: Sequence[Path]

    def copies(self, name: str) -> list[Path]:
        """Return where a file lies."""
        return [folder / name for folder in self.folders if (folder / name).is_file()]

    def is_companion(self, name: str) -> bool:
        """Tell whether a file is one that lies in every folder."""
        return not sums.is_volume(name) and not sums.is_parity(name)

    def best(self, file: CoveredFile) -> Path | None:
        """Return the copy of a covered file to read, a sound one if that is quickly told."""
        there = self.copies(file.name)
        if self.is_companion(file.name):
            there.sort(key=lambda path: not has_digest(path, file.sha256))
        else:
            there.sort(key=lambda path: path.stat().st_size != file.size)
        return there[0] if there else None


def has_digest(path: Path, digest: str) -> bool:
    """Tell whether a file is there, can be read, and has this sha256."""
    try:
        return sha256_of(path) == digest
    except OSError:
        return False


def find_protected(folders: Sequence[Path]) -> ProtectedBundle:
    """Find out what a bundle must be: from its manifest and sums, or from what its parity volumes carry.

    :raises InputError: no bundle is there, several are, or one without parity.
    :raises DamagedError: manifest or sums are damaged, and no parity volume has a sound copy.
    """
    headers = list(dict.fromkeys(_headers(folders)))
    pairs = list(dict.fromkeys(_pairs(folders)))
    where = ", ".join(map(str, folders))
    known = list(dict.fromkeys([data for data, _ in pairs] or [header.manifest for header in headers]))
    if len(known) > 1:
        raise InputError(
            "these folders hold different bundles", where=where, hint="name the folders of one bundle"
        )
    if not known:
        raise _nothing(folders)
    manifest = manifests.decode(known[0], f"{sums.MANIFEST} of {where}")
    validate.check(manifest, f"{sums.MANIFEST} of {where}")
    if manifest.parity is None:
        raise InputError(
            f"{manifest.name} has no parity to be mended by",
            where=where,
            hint="copy what is damaged again from where the bundle was packed; "
            "bundler pack --parity N makes bundles that can be mended",
        )
    lists = [sums.parse(one.listed, folders[0]) for one in headers if one.manifest == known[0]]
    lists += [digests for _, digests in map(_parsed, pairs)]
    digests = {one.name: one.sha256 for one in manifest.volumes}
    for name in (sums.MANIFEST, *(file.name for file in manifest.parity.files)):
        if name not in lists[0]:
            raise DamagedError(
                f"{sums.SUMS} doesn't list {name}, and no parity volume has a sound copy of it",
                where=where,
                hint=f"copy {sums.SUMS} again from where the bundle was packed",
            )
        digests[name] = lists[0][name]
    groups = parity.groups_of(manifest.parity, parity.covered_files(manifest, digests))
    header = ParityHeader(known[0], sums.render(digests))
    return ProtectedBundle(manifest, header, digests, groups, folders)


def _headers(folders: Sequence[Path]) -> Iterator[ParityHeader]:
    """Yield the sound headers of the parity volumes that are there."""
    for folder in folders:
        for path in sorted(folder.glob("parity-*.zfec")):
            header = read_header(path)
            if header is not None:
                yield header


def read_header(path: Path) -> ParityHeader | None:
    """Return what a parity volume begins with, or ``None`` where that is damaged."""
    try:
        with os.fdopen(open_plain(path), "rb") as file:
            size = parity.announced(file.read(ANNOUNCEMENT))
            largest = sums.LARGEST_MANIFEST + sums.LARGEST_SUMS
            if size is None or size > min(path.stat().st_size, largest):
                return None
            file.seek(0)
            return parity.decode_header(file.read(size))
    except OSError:
        return None


def _pairs(folders: Sequence[Path]) -> Iterator[tuple[bytes, bytes]]:
    """Yield manifest and sums of each folder where they are there and agree."""
    for folder in folders:
        try:
            listed = read_plain(folder / sums.SUMS, sums.LARGEST_SUMS)
            pair = read_plain(folder / sums.MANIFEST, sums.LARGEST_MANIFEST), listed
            if _parsed(pair)[1].get(sums.MANIFEST) == hashlib.sha256(pair[0]).hexdigest():
                yield pair
        except (OSError, DamagedError):
            continue


def _parsed(pair: tuple[bytes, bytes]) -> tuple[bytes, dict[str, str]]:
    from pathlib import Path

    return pair[0], sums.parse(pair[1], Path(sums.SUMS))


def _nothing(folders: Sequence[Path]) -> InputError | DamagedError:
    where = ", ".join(map(str, folders))
    names = (sums.MANIFEST, sums.SUMS)
    if not any((folder / name).is_file() for folder in folders for name in names) and not any(
        any(folder.glob("parity-*.zfec")) for folder in folders
    ):
        return InputError("this is not a bundle", where=where, hint="name the folder that holds its volumes")
    return DamagedError(
        "manifest.json and SHA256SUMS are damaged or missing, and no parity volume has a sound copy of them",
        where=where,
        hint="copy manifest.json and SHA256SUMS again from where the bundle was packed; "
        "then this command mends the rest",
    )
