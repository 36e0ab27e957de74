"""Telling a bundle's own volumes from missing, short and foreign ones, before anything is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bundler.archive import frames
from bundler.archive.parity_advice import or_repair
from bundler.archive.volume_reader import FileVolume
from bundler.errors import DamagedError, MissingVolumeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bundler.archive.bundle import Bundle


def check_volumes(bundle: Bundle, *, partial: bool = False) -> None:
    """Check that the volumes are there, as long as they should be, and this bundle's own.

    A volume is known by the digest of its first frame, or of others where the first one is damaged.

    :param partial: missing volumes are no fault.
    :raises MissingVolumeError: none is here, or naming each that is missing, short, too long or swapped.
    """
    if partial and not bundle.volumes and bundle.manifest.volumes:
        raise MissingVolumeError(
            f"none of the bundle's {len(bundle.manifest.volumes)} volumes is here",
            where=", ".join(map(str, bundle.folders)),
            hint="name the folder that holds volumes",
        )
    found = list(_findings(bundle, partial))
    if found:
        raise MissingVolumeError(
            "volumes are missing, short or swapped; nothing was written",
            where=", ".join(map(str, bundle.folders)),
            findings=found,
            hint=or_repair(
                "copy the named volumes again, or name every folder that holds volumes: "
                "bundler unpack DISK1 DISK2 DEST (one disk after the other: --partial)",
                bundle.folders,
                parity=bundle.manifest.parity is not None,
            ),
        )


def _findings(bundle: Bundle, partial: bool) -> Iterator[str]:
    for place, volume in enumerate(bundle.manifest.volumes):
        reader = bundle.volumes.get(volume.name)
        if reader is None:
            if not partial:
                yield f"{volume.name} is missing ({volume.size} bytes)"
            continue
        size = reader.size()
        # What comes over a network isn't read twice: each frame is compared as it comes.
        other = isinstance(reader, FileVolume) and _stranger(bundle, place, same_size=size == volume.size)
        if other:
            yield f"{volume.name} is swapped: it holds {other} ({reader.path})"
        elif size != volume.size:
            word = "short" if size < volume.size else "too long"
            yield f"{volume.name} is {word}: {size} bytes, not {volume.size} ({reader.path})"


def _stranger(bundle: Bundle, place: int, *, same_size: bool) -> str | None:
    """Say whose bytes a volume holds, or ``None`` where nothing speaks against its being the bundle's own.

    One damaged frame doesn't make a stranger: several frames are looked at before a volume is called one. In
    a volume of a single frame damage can't be told from another bundle's bytes; unpacking finds it, and
    writes none of it. What the disk doesn't give speaks for nothing.
    """
    first, count = bundle.layout.first_of(place), bundle.manifest.volumes[place].frames
    if _holds(bundle, place, first) is not False:
        return None
    for other, volume in enumerate(bundle.manifest.volumes):
        if other != place and _holds(bundle, place, bundle.layout.first_of(other)):
            return volume.name
    samples = {first + 1, first + count // 2, first + count - 1} - {first, first + count}
    if not same_size or not samples or any(_holds(bundle, place, sample) is not False for sample in samples):
        return None
    return "another bundle's bytes"


def _holds(bundle: Bundle, place: int, number: int) -> bool | None:
    """Tell whether a volume holds a frame's bytes where the frame's own volume has them.

    :returns: ``None`` where they can't be read.
    """
    frame = bundle.layout.frame(number)
    buffer = memoryview(bytearray(frame.stored))
    reader = bundle.volumes[bundle.manifest.volumes[place].name]
    try:
        reader.read_at(frame.offset, buffer)
    except DamagedError:
        return None
    return frames.digest(buffer) == frame.blake3
