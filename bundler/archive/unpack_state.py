"""How far an unpack is: durable frames, files under way, files in place; and its journal."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import msgspec

from bundler.archive.journal import Journal
from bundler.errors import DestinationError
from bundler.installation import BUNDLES, JOURNAL, PARTIAL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from bundler.archive.bundle import Bundle
    from bundler.archive.target import Target
    from bundler.manifest import Entry

_SYNCS_AT_ONCE = 8


class UnpackRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A step of an unpack, durable once it is in the journal."""

    frames: tuple[tuple[int, int], ...] = ()
    """Spans of frames whose content became durable: the first and the last of each."""
    lost: tuple[tuple[int, int], ...] = ()
    """Spans of frames whose content is gone again: their file was deleted or altered since."""
    files: tuple[tuple[int, int], ...] = ()
    """Number and modification time of files that got their own names."""


class UnpackState:
    """The durable part of an unpack. Changed by one thread at a time."""

    def __init__(self, bundle: Bundle, target: Target) -> None:
        """Read the journal, or begin one.

        :raises DestinationError: another bundle's unpack is unfinished there, or is under way.
        """
        self._bundle, self._target = bundle, target
        self.durable = bytearray(len(bundle.layout))
        """1 for each frame whose content is durable in files under way or in place."""
        self.placed: dict[int, int] = {}
        """Modification time of files that got their own names, by number."""
        self._left: dict[int, int] = {}
        self._earlier: set[int] = set()
        self._again: set[int] = set()
        self._journal = Journal(target.root / JOURNAL, UnpackRecord)
        try:
            self._begin(bundle.manifest_sha256)
        except BaseException:
            self._journal.close()
            raise
        for record in self._journal.records:
            for first, last in record.lost:
                self.durable[first : last + 1] = bytes(last + 1 - first)
            for first, last in record.frames:
                self.durable[first : last + 1] = b"\1" * (last + 1 - first)
            self.placed.update(record.files)

    def close(self) -> None:
        """Close the journal; it stays, and knows that the bundle is here."""
        self._journal.close()

    def just_placed(self, number: int, entry: Entry) -> bool:
        """Tell whether a file got its name before a crash kept the journal from saying so.

        All its frames are journalled as durable, and it isn't under way any more: only a rename does that.
        So it is ours, and may be replaced; its bytes are another matter.
        """
        return (
            number not in self.placed
            and entry.size > 0
            and entry.offset >= 0
            and all(self.durable[frame] for frame in self._bundle.layout.of_file(number))
            and self._target.partial_status(entry) is None
        )

    def note_adopted(self, number: int, modified: int) -> None:
        """Journal a file that was there, whole and durable: the next run needn't read it again."""
        self.placed[number] = modified
        self._journal.append(UnpackRecord(files=((number, modified),)))

    def prepare(self, kept: Mapping[int, int]) -> list[int]:
        """Take over what is there, and return the frames that are needed yet.

        What was lost is journalled before it is written anew: a file half written anew must not pass for one
        that is whole because the journal knew its frames once.

        :param kept: modification time of the files that are there, whole.
        """
        layout, tree = self._bundle.layout, self._bundle.manifest.tree
        self.placed = dict(kept)
        missing = [number for number, entry in enumerate(tree) if entry.kind == "file" and number not in kept]
        lost = set()
        for number in missing:
            if tree[number].size and self._target.partial_status(tree[number]) is None:
                lost |= {frame for frame in layout.of_file(number) if self.durable[frame]}
        for frame in lost:
            self.durable[frame] = 0
        self._journal.append(UnpackRecord(lost=tuple(_spans(sorted(lost))), files=tuple(self.placed.items())))
        needed = [
            number for number in range(len(layout)) if not self.durable[number] and self._is_needed(number)
        ]
        wanted = set(needed)
        self._left = {number: sum(frame in wanted for frame in layout.of_file(number)) for number in missing}
        self._earlier = {
            number for number in missing if self._target.partial_status(tree[number]) is not None
        }
        return needed

    def _is_needed(self, number: int) -> bool:
        slices = self._bundle.layout.slices(self._bundle.layout.frame(number))
        return not slices or any(piece.entry not in self.placed for piece in slices)

    def remaining(self) -> list[int]:
        """Return the numbers of the files that aren't in place."""
        return list(self._left)

    def bytes_missing(self) -> int:
        """Return the bytes that the files not in place will take, less what they take already."""
        needed = 0
        for number in self._left:
            entry = self._bundle.manifest.tree[number]
            there = self._target.partial_status(entry)
            taken = there.st_blocks * 512 if there else 0
            needed += max(entry.size - taken, 0)
        return needed

    def commit(self, frames: Iterable[int]) -> None:
        """Make frames durable, journal them, and give the files that became whole their names.

        A file gets its name only after the journal knows all its frames, and they only after its bytes are
        durable: so a file with its own name is a whole one, whenever the machine stops.
        """
        numbers = sorted(frames)
        touched = self._touched(numbers)
        self._sync(touched)
        self._journal.append(UnpackRecord(frames=tuple(_spans(numbers))))
        for number in numbers:
            self.durable[number] = 1
        for number, count in touched.items():
            self._left[number] -= count
        self.place(number for number in touched if not self._left[number])

    def place(self, whole: Iterable[int]) -> None:
        """Give whole files their names.

        What an earlier run wrote was out of bundler's sight since: such a file is hashed first, and one with
        other bytes than the manifest's is given up, to be written anew.
        """
        rows = []
        for number in whole:
            if number in self._earlier and not self._target.holds(self._bundle.manifest.tree[number]):
                self._give_up(number)
                continue
            rows.append((number, self._target.place(self._bundle.manifest.tree[number])))
            del self._left[number]
        self.placed.update(rows)
        if rows:
            self._journal.append(UnpackRecord(files=tuple(rows)))

    def take_again(self) -> list[int]:
        """Return the frames of files that were given up, once: they are to be written again."""
        again, self._again = sorted(self._again), set()
        return again

    def _give_up(self, number: int) -> None:
        """Forget what is there of a file; its frames are journalled as lost before they are written anew."""
        frames = list(self._bundle.layout.of_file(number))
        self._journal.append(UnpackRecord(lost=tuple(_spans(frames))))
        self._target.drop_partial(self._bundle.manifest.tree[number])
        for frame in frames:
            if not self.durable[frame]:
                continue
            self.durable[frame] = 0
            for entry in self._entries(frame) & {*self._left} - {number}:
                self._left[entry] += 1
        self._left[number] = len(frames)
        self._earlier.discard(number)
        self._again |= {*frames}

    def _entries(self, frame: int) -> set[int]:
        return {piece.entry for piece in self._bundle.layout.slices(self._bundle.layout.frame(frame))}

    def place_ready(self) -> None:
        """Give their names to files that an earlier run made whole, and to empty ones."""
        ready = [number for number, left in self._left.items() if not left]
        for number in ready:
            entry = self._bundle.manifest.tree[number]
            if not entry.size:
                self._target.write(entry, 0, memoryview(b""))
        self._sync(ready)
        self.place(ready)

    def _sync(self, numbers: Iterable[int]) -> None:
        """Make files under way durable, with their names."""
        entries = [self._bundle.manifest.tree[number] for number in numbers]
        # At once: what the file system has to write for each, its log above all, it writes for all of them.
        with ThreadPoolExecutor(_SYNCS_AT_ONCE, "file-sync") as pool:
            deque(pool.map(self._target.sync, entries), maxlen=0)
        for folder in {entry.path.rpartition("/")[0] for entry in entries}:
            self._target.sync_folder(f"{PARTIAL}/{folder}" if folder else PARTIAL)

    def _touched(self, frames: Iterable[int]) -> dict[int, int]:
        """Return how many of the frames each file under way has a piece of."""
        counts: dict[int, int] = {}
        for number in frames:
            for piece in self._bundle.layout.slices(self._bundle.layout.frame(number)):
                if piece.entry in self._left:
                    counts[piece.entry] = counts.get(piece.entry, 0) + 1
        return counts

    def _begin(self, subject: str) -> None:
        other = self._journal.subject
        if other == subject:
            return
        unfinished = (
            other is not None and self._journal.records and not _is_finished(self._target.root, other)
        )
        if unfinished:
            raise DestinationError(
                "another bundle's unpack is unfinished here",
                where=self._target.root,
                hint=f"finish it first, or give it up: rm {self._target.root / JOURNAL}",
            )
        self._target.clear_partials()
        self._journal.start(subject)


def _is_finished(root: Path, sha256: str) -> bool:
    return (root / BUNDLES / f"{sha256}.json").exists()


def _spans(numbers: list[int]) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    for number in numbers:
        if spans and spans[-1][1] == number - 1:
            spans[-1] = (spans[-1][0], number)
        else:
            spans.append((number, number))
    return spans
