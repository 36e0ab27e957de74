"""Going on with an interrupted pack: disks and journal are brought to one state."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bundler.archive import frames
from bundler.archive.media import PARTIAL_SUFFIX
from bundler.archive.validate import VOLUME_NAME
from bundler.common.digest import sha256_of
from bundler.errors import DamagedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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


@dataclass(frozen=True)
class Restored:
    """Where a pack goes on."""

    volume: OpenVolume | None
    """The volume under way; ``None``: the next frame begins a new one."""
    content: hashlib._Hash | None
    """The hash so far of the file in whose middle the stream goes on; ``None``: it goes on between files."""


def restore(written: Written, plan: StreamPlan, media: Media) -> Restored:
    """Forget what isn't whole on the disks, and cut away what isn't durably known.

    The volume under way is read once, for its digest. Of a file under way the archived bytes are read, not
    the file: so its digest is of what is in the archive, whatever became of the file meanwhile.
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
        elif path is None or end != len(written.stored):
            written.cut(first)
            return None
        else:
            return _reopen(written, media, path, number, first)
    return None


def _reopen(written: Written, media: Media, path: Path, number: int, first: int) -> OpenVolume | None:
    """Cut the volume under way to its durable frames, and check each of them."""
    partial = path.with_name(VOLUME_NAME.format(number + 1) + PARTIAL_SUFFIX)
    path.rename(partial)
    digest = hashlib.sha256()
    size = 0
    with partial.open("r+b") as file:
        for frame in range(first, len(written.stored)):
            data = file.read(written.stored[frame])
            if frames.digest(data) != written.digests[frame]:
                written.cut(frame)
                return None
            digest.update(data)
            size += len(data)
        file.truncate(size)
        # The volume may get its name without another byte: then this is its last sync.
        os.fsync(file.fileno())
    whole = min(written.volume_size, size + written.room_needed)
    return OpenVolume(media.settle(partial, whole), number, size, digest)


def _restore_content(written: Written, plan: StreamPlan, media: Media) -> hashlib._Hash | None:
    """Hash the archived beginning of the file in whose middle the stream goes on."""
    number = plan.member_at(written.position)
    if number == len(plan.members):
        return None
    begin = plan.places[number].content
    if not begin < written.position < begin + plan.members[number].size:
        return None
    first = plan.frame_at(begin)
    digest = hashlib.sha256()
    try:
        for frame, content in _contents(written, plan, media, first):
            digest.update(content[max(begin - plan.frames[frame], 0) :])
    except (DamagedError, OSError):
        written.cut(first)
        return None
    return digest


def _contents(
    written: Written, plan: StreamPlan, media: Media, first: int
) -> Iterator[tuple[int, memoryview]]:
    """Yield the contents of the written frames from a number on."""
    for number, (begin, end) in enumerate(written.volume_spans()):
        if end <= first:
            continue
        path = media.find(VOLUME_NAME.format(number + 1))
        if path is None:
            raise DamagedError("a volume went away")
        with path.open("rb") as file:
            start = max(begin, first)
            file.seek(sum(written.stored[begin:start]))
            for frame in range(start, end):
                data = file.read(written.stored[frame])
                if frames.digest(data) != written.digests[frame]:
                    raise DamagedError("a frame that was written is damaged", where=path)
                content = memoryview(bytearray(plan.frames[frame + 1] - plan.frames[frame]))
                frames.decompress(data, content)
                yield frame, content
