"""Going on with an interrupted pack: disks and journal are brought to one state."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bundler.archive import frames
from bundler.archive.media import PARTIAL_SUFFIX
from bundler.archive.pack_state import PackRecord
from bundler.archive.validate import VOLUME_NAME
from bundler.common.digest import sha256_of
from bundler.common.durable import sync_folder
from bundler.errors import DamagedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bundler.archive.chain import Chain
    from bundler.archive.media import Media
    from bundler.archive.pack_state import Written
    from bundler.archive.recipe import StreamPlan


@dataclass
class OpenVolume:
    """The volume that the next frame goes to."""

    path: Path
    """Its file, under the partial name."""
    number: int
    """Its place among the volumes, from 0."""
    size: int
    """Bytes in it."""
    digest: hashlib._Hash
    """The sha256 of them, to go on with."""
    file: int = -1
    """Its descriptor, while it is written."""
    chain: Chain = field(init=False)
    """Where its sha256 goes on, while it is written."""


@dataclass(frozen=True)
class Restored:
    """Where a pack goes on."""

    volume: OpenVolume | None
    """The volume under way; ``None``: the next frame begins a new one."""
    content: hashlib._Hash | None
    """The hash so far of the file in whose middle the stream goes on; ``None``: it goes on between files."""


def restore(written: Written, plan: StreamPlan, media: Media) -> Restored:
    """Forget what isn't whole on the disks, and cut away what isn't durably known.

    Volumes whose digest isn't known are read once. Of files whose digest isn't known the archived bytes are
    read, not the file: so it is of what is in the archive, whatever became of the file meanwhile.
    """
    while True:
        known = len(written.stored)
        volume = _restore_volumes(written, media)
        content = _restore_content(written, plan, media) if len(written.stored) == known else None
        if len(written.stored) == known:
            return Restored(volume, content)


def _restore_volumes(written: Written, media: Media) -> OpenVolume | None:
    """Return the volume to go on with, or cut ``written`` to what is on the disks."""
    spans = written.volume_spans()
    media.drop_others([VOLUME_NAME.format(number + 1) for number in range(len(spans))])
    for number, (first, end) in enumerate(spans):
        name = VOLUME_NAME.format(number + 1)
        path = media.find(name)
        if number in written.volumes:
            size = sum(written.stored[first:end])
            if path is None or path.name != name or path.stat().st_size != size:
                written.cut(first)
                return None
            if number in written.unread:
                # An earlier run's: what became of it since, its size doesn't tell.
                if sha256_of(path) != written.volumes[number]:
                    written.cut(first)
                    return None
                written.unread.discard(number)
            media.follow(path)
        elif path is None:
            written.cut(first)
            return None
        else:
            volume = _reopen(written, path, number, first, end)
            if volume is None or end == len(written.stored):
                return volume and _settle(written, media, volume)
            name_volume(written, volume, volume.digest.hexdigest())
            written.unread.discard(number)
            media.follow(volume.path)
    return None


def name_volume(written: Written, volume: OpenVolume, digest: str) -> None:
    """Give a whole volume, which is durable, its own name, and journal its sha256 after that."""
    volume.path.rename(volume.path.with_name(VOLUME_NAME.format(volume.number + 1)))
    sync_folder(volume.path.parent)
    written.add(PackRecord(volumes=((volume.number, digest),)))


def _settle(written: Written, media: Media, volume: OpenVolume) -> OpenVolume:
    """Take the volume under way to where it can be finished."""
    whole = min(written.volume_size, volume.size + written.room_needed())
    volume.path = media.settle(volume.path, whole)
    return volume


def _reopen(written: Written, path: Path, number: int, first: int, end: int) -> OpenVolume | None:
    """Cut a volume to its durable frames, and check each of them."""
    partial = path.with_name(VOLUME_NAME.format(number + 1) + PARTIAL_SUFFIX)
    path.rename(partial)
    digest = hashlib.sha256()
    size = 0
    with partial.open("r+b") as file:
        for frame in range(first, end):
            data = file.read(written.stored[frame])
            if frames.digest(data) != written.digests[frame]:
                written.cut(frame)
                return None
            digest.update(data)
            size += len(data)
        file.truncate(size)
        # The volume may get its name without another byte: then this is its last sync.
        os.fsync(file.fileno())
    return OpenVolume(partial, number, size, digest)


def _restore_content(written: Written, plan: StreamPlan, media: Media) -> hashlib._Hash | None:
    """Hash what is archived of files whose digest isn't known; return the hash of the one under way."""
    for number in range(min(plan.member_at(written.position) + 1, len(plan.members))):
        member, begin = plan.members[number], plan.places[number].content
        if not member.size or member.kind != "file" or number in written.files or begin >= written.position:
            continue
        first = plan.frame_at(begin)
        whole = begin + member.size <= written.position
        digest = hashlib.sha256()
        try:
            for content in _contents(written, plan, media, begin, min(begin + member.size, written.position)):
                digest.update(content)
            if whole and member.sha256 not in (None, digest.hexdigest()):
                raise DamagedError("what is archived isn't what was promised")
        except (DamagedError, OSError):
            written.cut(plan.frame_at(plan.places[number].header) if whole else first)
            return None
        if not whole:
            return digest
        written.add(PackRecord(files=((number, digest.hexdigest()),)))
    return None


def _contents(
    written: Written, plan: StreamPlan, media: Media, begin: int, stop: int
) -> Iterator[memoryview]:
    """Yield the stream's bytes from ``begin`` to before ``stop``, out of the volumes."""
    for number, (first, end) in enumerate(written.volume_spans()):
        numbers = range(max(first, plan.frame_at(begin)), min(end, plan.frame_at(stop - 1) + 1))
        path = media.find(VOLUME_NAME.format(number + 1)) if numbers else None
        if path is None:
            if numbers:
                raise DamagedError("a volume went away")
            continue
        with path.open("rb") as file:
            file.seek(sum(written.stored[first : numbers[0]]))
            for frame in numbers:
                data = file.read(written.stored[frame])
                if frames.digest(data) != written.digests[frame]:
                    raise DamagedError("a frame that was written is damaged", where=path)
                content = memoryview(bytearray(plan.frames[frame + 1] - plan.frames[frame]))
                frames.decompress(data, content)
                yield content[max(begin - plan.frames[frame], 0) : stop - plan.frames[frame]]
