"""A bundle as a reader meets it: found, opened, its manifest believed only after its digest was checked."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Self

from bundler import manifest as manifests
from bundler.archive import frames, sums, validate
from bundler.archive.layout import Layout
from bundler.archive.media import PACK_JOURNAL
from bundler.archive.parity_advice import has_parity, or_repair
from bundler.archive.trust import ASK_NOTHING
from bundler.archive.volume_reader import FileVolume
from bundler.common.durable import holds_file, read_plain
from bundler.errors import DamagedError, InputError, UnknownNameError
from bundler.workspace import PACKED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bundler.archive.layout import Frame
    from bundler.archive.trust import Trust
    from bundler.archive.volume_reader import VolumeReader
    from bundler.manifest import Manifest, Volume
    from bundler.provenance import Provenance

BUNDLE_VARIABLE = "BUNDLER_BUNDLE"

OTHER_BYTES = "its bytes differ from the manifest's digest"
"""What is said of a frame that could be read."""


class Bundle:
    """An opened bundle: manifest, layout, and the volumes that are there."""

    def __init__(
        self,
        manifest: Manifest,
        data: bytes,
        listed: bytes,
        folders: Sequence[Path],
        volumes: Mapping[str, VolumeReader],
        provenance: Provenance,
    ) -> None:
        """Hold the parts; :meth:`open` finds them on disks.

        :param data: the manifest's bytes.
        :param listed: the sums file, which was parsed before.
        :param volumes: those that are there, by name.
        :param provenance: what is known of who made it.
        """
        self.manifest = manifest
        self.manifest_data = data
        self.manifest_sha256 = hashlib.sha256(data).hexdigest()
        self.sums_data = listed
        self.sums = sums.parse(listed, folders[0] / sums.SUMS)
        self.folders = tuple(folders)
        self.volumes: dict[str, VolumeReader] = dict(volumes)
        self.provenance = provenance
        self.layout = Layout(manifest)

    @classmethod
    def open(cls, folders: Sequence[Path], trust: Trust = ASK_NOTHING) -> Self:
        """Open the bundle whose files lie in one folder or several.

        ``SHA256SUMS`` is read first and held against what is asked for; then the manifest is checked against
        it before it is believed.

        :param trust: what is asked of the bundle.
        :raises UntrustedError: the bundle isn't what is asked for; of the manifest nothing was read.
        :raises InputError: no bundle there, different bundles, or a manifest that isn't safe.
        :raises DamagedError: the manifest isn't the one that the sums name.
        """
        if not folders:
            raise InputError("no bundle was named")
        home = folders[0]
        listed = [_read(folder, sums.SUMS) for folder in folders]
        provenance = trust.check(listed[0], folders)
        opened = [(_open_manifest(folder, data), data) for folder, data in zip(folders, listed, strict=True)]
        for folder, one in zip(folders, opened, strict=True):
            if one != opened[0]:
                raise InputError(
                    "these folders hold different bundles",
                    where=f"{home} and {folder}",
                    hint="name the folders of one bundle, or unpack one after the other",
                )
        data = opened[0][0]
        manifest = manifests.decode(data, home / sums.MANIFEST)
        validate.check(manifest, home / sums.MANIFEST)
        return cls(manifest, data, listed[0], folders, _find_volumes(manifest.volumes, folders), provenance)

    @property
    def name(self) -> str:
        """The bundle's name."""
        return self.manifest.name

    @property
    def missing(self) -> list[str]:
        """The names of the volumes that aren't there."""
        return [volume.name for volume in self.manifest.volumes if volume.name not in self.volumes]

    def read(self, frame: Frame, buffer: memoryview) -> None:
        """Fill the buffer, as long as the frame is stored, with the frame's bytes, and compare them.

        :raises DamagedError: the volume can't be read there, or they aren't those that the manifest names:
            then they are in the buffer.
        :raises KeyError: the volume isn't here.
        """
        self.volumes[self.manifest.volumes[frame.volume].name].read_at(frame.offset, buffer)
        if frames.digest(buffer) != frame.blake3:
            raise DamagedError(OTHER_BYTES)

    def forget(self, frame: Frame) -> None:
        """Let a frame's bytes go out of the kernel's cache."""
        self.volumes[self.manifest.volumes[frame.volume].name].forget(frame.offset, frame.stored)

    def expect(self, numbers: Iterable[int]) -> None:
        """Be told which frames will be read; on disks nothing depends on it."""

    def content(self, number: int) -> memoryview:
        """Return a frame's content, checked.

        :raises DamagedError: it can't be read, or isn't what the manifest says.
        :raises KeyError: its volume isn't here.
        """
        frame = self.layout.frame(number)
        stored, content = memoryview(bytearray(frame.stored)), memoryview(bytearray(frame.raw))
        self.read(frame, stored)
        frames.decompress(stored, content)
        return content

    def close(self) -> None:
        """Close the volumes."""
        for volume in self.volumes.values():
            volume.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _open_manifest(folder: Path, listed: bytes) -> bytes:
    """Return the manifest's bytes if they are those that the sums name."""
    data = _read(folder, sums.MANIFEST)
    digests = sums.parse(listed, folder / sums.SUMS)
    if digests.get(sums.MANIFEST) != hashlib.sha256(data).hexdigest():
        raise DamagedError(
            "manifest.json is not the one that SHA256SUMS names",
            where=folder / sums.MANIFEST,
            hint=or_repair("copy manifest.json and SHA256SUMS again", [folder], parity=has_parity(folder)),
        )
    return data


def _read(folder: Path, name: str) -> bytes:
    path = folder / name
    try:
        return read_plain(path, sums.LARGEST_SUMS if name == sums.SUMS else sums.LARGEST_MANIFEST)
    except FileNotFoundError as problem:
        raise InputError(
            f"this is not a whole bundle: it has no {name}",
            where=folder,
            hint=or_repair(
                "name the folder that holds manifest.json and SHA256SUMS; if packing was interrupted, "
                "run the same bundler pack again",
                [folder],
                parity=has_parity(folder),
            ),
        ) from problem
    except OSError as problem:
        raise InputError(
            f"the bundle can't be read: {name}: {problem.strerror}",
            where=path,
            hint="copy it again from where the bundle was packed",
        ) from problem


def _find_volumes(volumes: Sequence[Volume], folders: Sequence[Path]) -> dict[str, FileVolume]:
    """Open each volume in the first folder that has it whole, or else in the first that has it."""
    found: dict[str, FileVolume] = {}
    for volume in volumes:
        there = [folder / volume.name for folder in folders if (folder / volume.name).is_file()]
        there.sort(key=lambda path: path.stat().st_size != volume.size)
        if there:
            try:
                found[volume.name] = FileVolume(there[0])
            except OSError as problem:
                raise InputError(f"can't read {volume.name}: {problem.strerror}", where=there[0]) from problem
    return found


def is_bundle(folder: Path) -> bool:
    """Tell whether a folder holds a bundle, by its manifest and sums."""
    return holds_file(folder, sums.MANIFEST) and holds_file(folder, sums.SUMS)


def find_bundle(start: Path | None = None) -> Path:
    """Return the folder of the one bundle that is meant.

    That is ``start`` or the one of its direct subfolders that is a bundle; without ``start``, the folder that
    ``BUNDLER_BUNDLE`` names, and only where it isn't set the same for the current folder and what ``pack``
    wrote to ``bundles`` in it.

    :raises UnknownNameError: none is there, or several are, which it names.
    """
    named = os.environ.get(BUNDLE_VARIABLE)
    if start is None and named:
        if is_bundle(Path(named)):
            return Path(named)
        raise UnknownNameError(f"${BUNDLE_VARIABLE} doesn't name a bundle", where=named)
    place = start if start is not None else Path.cwd()
    if is_bundle(place):
        return place
    found = bundles_below(place)
    if start is None:
        found += bundles_below(place / PACKED)
    if len(found) == 1:
        return found[0]
    if found:
        raise UnknownNameError(
            "several bundles are here: " + ", ".join(folder.name for folder in found),
            where=place,
            hint=f"name the one you mean, or set {BUNDLE_VARIABLE}",
        )
    if (place / sums.MANIFEST).is_file() or (place / sums.SUMS).is_file():
        raise UnknownNameError(
            "this is not a whole bundle: it lacks manifest.json or SHA256SUMS",
            where=place,
            hint=or_repair(
                "copy the bundle again, whole; if packing was interrupted, run the same bundler pack again",
                [place],
                parity=has_parity(place),
            ),
        )
    if start is not None and not place.exists():
        raise UnknownNameError(
            "there is no such folder", where=place, hint="name the folder that holds manifest.json"
        )
    if start is not None and (place / PACK_JOURNAL).is_file():
        raise UnknownNameError(
            "the bundle here is unfinished",
            where=place,
            hint="run the `bundler pack` that was interrupted again: it goes on",
        )
    raise UnknownNameError(
        "no bundle here, nor in a folder directly below",
        where=place,
        hint=or_repair(
            f"name the folder that holds manifest.json, or set {BUNDLE_VARIABLE}",
            [place],
            parity=has_parity(place),
        ),
    )


def bundles_below(folder: Path) -> list[Path]:
    """Return the direct subfolders that are bundles, by name; none where the folder can't be read."""
    try:
        return sorted(child for child in folder.iterdir() if is_bundle(child))
    except OSError:
        return []
