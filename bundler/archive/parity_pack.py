"""Parity as a pack makes it: its disks are chosen before README.txt names them, its bytes made after that."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from bundler import manifest as manifests
from bundler.archive import parity, sums
from bundler.archive.parity_writer import place_parity, write_parity
from bundler.manifest import CompanionFile, Manifest, Parity

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bundler.archive.media import Media
    from bundler.archive.parity import CoveredFile, ParityGroup
    from bundler.common.progress import Reporter

_README = 2**16
"""Bytes that README.txt is taken to have at most, until it is written."""


def with_parity(manifest: Manifest, count: int, sizes: Mapping[str, int]) -> Manifest:
    """Return the manifest with what says which files parity covers.

    :param count: parity volumes of a group; 0: none.
    :param sizes: bytes of each file besides the volumes, by name.
    """
    if not count:
        return manifest
    files = tuple(CompanionFile(name, size) for name, size in sorted(sizes.items()))
    made = Parity(data=parity.MOST_DATA, parity=count, stripe=parity.STRIPE, files=files)
    return msgspec.structs.replace(manifest, parity=made)


def choose_places(manifest: Manifest, companions: Mapping[str, int], media: Media) -> dict[str, Path]:
    """Return the folder of each parity volume, and delete those of an earlier try that aren't wanted.

    :param manifest: as :func:`with_parity` makes it, with README.txt's size not known yet.
    :raises PreflightError: no disk has room for one.
    """
    draft = manifest
    if manifest.parity is not None:
        draft = with_parity(manifest, manifest.parity.parity, {**companions, sums.README: _README})
    header = len(manifests.encode(draft)) + _README
    return place_parity(media, _groups(draft, {}), header)


def make_parity(
    manifest: Manifest,
    digests: Mapping[str, str],
    sources: Mapping[str, Path],
    places: Mapping[str, Path],
    *,
    threads: int | None,
    reporter: Reporter,
) -> dict[str, str]:
    """Make the parity volumes, or go on with them, and return their digests by name.

    :param digests: of all that ``SHA256SUMS`` lists but these.
    :param sources: the path of each covered file, by name.
    """
    if manifest.parity is None:
        return {}
    header = parity.ParityHeader(manifests.encode(manifest), sums.render(digests))
    groups = _groups(manifest, digests)
    return write_parity(groups, header, sources, places, threads=threads, reporter=reporter)


def _groups(manifest: Manifest, digests: Mapping[str, str]) -> list[ParityGroup]:
    if manifest.parity is None:
        return []
    files: list[CoveredFile] = parity.covered_files(manifest, digests)
    return parity.groups_of(manifest.parity, files)
