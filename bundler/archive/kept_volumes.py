"""The volumes that a host took from others while it unpacked, kept so that the next hosts have them from it.

::

    DEST/.bundler/volumes/         as a bundle's folder: what is whole there can be shared later as well
      manifest.json SHA256SUMS [SHA256SUMS.sig]
      data-00001.tar.zst           whole
      data-00002.tar.zst.partial   as long as the whole one, with holes where frames aren't here
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_left, bisect_right
from http import HTTPStatus
from typing import TYPE_CHECKING

from bundler.archive import frames, sums
from bundler.archive.media import PARTIAL_SUFFIX
from bundler.common.durable import make_folder, remove, sync_folder, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from bundler.archive.bundle import Bundle
    from bundler.archive.layout import Frame


class KeptVolumes:
    """A bundle's volumes in a folder, filled frame by frame while others read them.

    What an earlier run left there is compared with the manifest's digest when it is asked for first.
    """

    def __init__(self, bundle: Bundle, folder: Path) -> None:
        """Look at what is there; nothing is written before the first frame comes."""
        self.folder = folder
        self._bundle = bundle
        self._change = threading.Condition()
        self._expected: set[int] | None = None
        """The frames that will come; ``None``: nobody knows yet."""
        self._right: set[int] = set()
        self._left = [volume.frames for volume in bundle.manifest.volumes]
        """How many of each volume's frames aren't known to be right."""
        self._begun = False
        self._places = {volume.name: place for place, volume in enumerate(bundle.manifest.volumes)}
        self._ours = _sums_in(folder) == bundle.sums_data

    def bytes_missing(self) -> int:
        """Return the bytes that the volumes will take yet."""
        needed = 0
        for volume in self._bundle.manifest.volumes:
            path = self._place(volume.name)
            taken = path.stat().st_blocks * 512 if self._ours and path.is_file() else 0
            needed += max(volume.size - taken, 0)
        return needed

    def find(self, name: str) -> tuple[Path, int] | None:
        """Return where a file is that may be shared, and its size: a volume's is that of the whole."""
        if name in self._places:
            return self._place(name), self._bundle.manifest.volumes[self._places[name]].size
        path = self._bundle.folders[0] / name
        small = name in (sums.SUMS, sums.MANIFEST, sums.SIGNATURE) and path.is_file()
        return (path, path.stat().st_size) if small else None

    def state(self, name: str, begin: int, end: int, seconds: float) -> int:
        """Say whether a part of a file is here, and wait for it where it will come.

        :return: 200, or 503: it will come, and hasn't yet; 404: it won't.
        """
        if name not in self._places:
            return HTTPStatus.OK
        numbers = self._numbers(self._places[name], begin, end)
        if not all(map(self._has, numbers)):
            with self._change:
                if not self._change.wait_for(lambda: not self._is_coming(numbers), seconds):
                    return HTTPStatus.SERVICE_UNAVAILABLE
        return HTTPStatus.OK if all(map(self._has, numbers)) else HTTPStatus.NOT_FOUND

    def read(self, frame: Frame, buffer: memoryview) -> bool:
        """Fill the buffer with a frame that is here; say whether it is."""
        if not self._ours:
            return False
        try:
            file = os.open(self._path_of(frame), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            # A hole begins where there is no data.
            if os.lseek(file, frame.offset, os.SEEK_DATA) != frame.offset:
                return False
            read = os.preadv(file, [buffer], frame.offset)
        except OSError:
            return False
        finally:
            os.close(file)
        if read != len(buffer) or frames.digest(buffer) != frame.blake3:
            return False
        self._note(frame)
        return True

    def put(self, frame: Frame, data: memoryview) -> None:
        """Keep a frame that was compared with its digest.

        :raises OSError: the disk doesn't take it.
        """
        with self._change:
            if not self._begun:
                self._begin()
        path = self._path_of(frame)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            os.ftruncate(file, self._bundle.manifest.volumes[frame.volume].size)
            at = frame.offset
            while data:
                written = os.pwrite(file, data, at)
                data, at = data[written:], at + written
        finally:
            os.close(file)
        self._note(frame)

    def expect(self, numbers: Iterable[int]) -> None:
        """Know which frames will come yet; who asks for another isn't kept waiting."""
        with self._change:
            self._expected = {*numbers} - self._right
            self._change.notify_all()

    def _begin(self) -> None:
        """Make the folder; another bundle's volumes there go."""
        if not self._ours:
            remove(self.folder)
            make_folder(self.folder)
            for name in (sums.MANIFEST, sums.SIGNATURE, sums.SUMS):
                path = self._bundle.folders[0] / name
                if path.is_file():
                    write_atomically(self.folder / name, path.read_bytes())
        self._ours = self._begun = True

    def _note(self, frame: Frame) -> None:
        """Know a frame as right; with its last one a volume gets its own name."""
        with self._change:
            if frame.number in self._right:
                return
            self._right.add(frame.number)
            (self._expected or set()).discard(frame.number)
            self._left[frame.volume] -= 1
            last = not self._left[frame.volume]
            self._change.notify_all()
        name = self._bundle.manifest.volumes[frame.volume].name
        if last and (partial := self._partial(name)).is_file():
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
            partial.replace(self.folder / name)
            sync_folder(self.folder)

    def _is_coming(self, numbers: range) -> bool:
        if self._expected is None:
            return not self._right.issuperset(numbers)
        return not self._expected.isdisjoint(numbers)

    def _has(self, number: int) -> bool:
        if number in self._right:
            return True
        frame = self._bundle.layout.frame(number)
        return self.read(frame, memoryview(bytearray(frame.stored)))

    def _numbers(self, place: int, begin: int, end: int) -> range:
        """Return the frames that hold a part of a volume."""
        layout = self._bundle.layout
        first = layout.first_of(place)
        numbers = range(first, first + self._bundle.manifest.volumes[place].frames)
        after = bisect_left(numbers, end, key=lambda number: layout.frame(number).offset)
        before = bisect_right(numbers, begin, key=lambda number: layout.frame(number).offset) - 1
        return numbers[max(before, 0) : after]

    def _path_of(self, frame: Frame) -> Path:
        return self._place(self._bundle.manifest.volumes[frame.volume].name)

    def _place(self, name: str) -> Path:
        whole = self.folder / name
        return whole if whole.is_file() else self._partial(name)

    def _partial(self, name: str) -> Path:
        return self.folder / (name + PARTIAL_SUFFIX)


def _sums_in(folder: Path) -> bytes:
    try:
        return (folder / sums.SUMS).read_bytes()
    except OSError:
        return b""
