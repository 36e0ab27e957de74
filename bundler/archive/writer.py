"""Writing a bundle: one pass over the data, resumable, the same bytes whatever the number of threads."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from bundler.archive import frames, small_files
from bundler.archive import replace as replacing
from bundler.archive.bundle import is_bundle
from bundler.archive.chain import Chains
from bundler.archive.finished import find_finished
from bundler.archive.journal import Journal
from bundler.archive.media import PACK_JOURNAL, Media, out_of_space
from bundler.archive.member import FileSource
from bundler.archive.pack_state import PackRecord, Written
from bundler.archive.parity import least_bytes
from bundler.archive.recipe import plan_stream, stream_key
from bundler.archive.resume import restore
from bundler.archive.stream import ContentDigests, ContentError, StreamReader
from bundler.archive.volume_writer import OutOfSpaceError, VolumeWriter
from bundler.common.progress import SILENT
from bundler.common.threads import MOST_THREADS, default_threads, in_order
from bundler.common.units import size_text
from bundler.errors import DestinationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from bundler.archive.chain import Chain, Link
    from bundler.archive.recipe import Recipe, StreamPlan
    from bundler.archive.resume import Restored
    from bundler.common.progress import Meter, Reporter
    from bundler.manifest import Manifest

_MEMORY, _MEMORY_A_THREAD = 320 * 2**20, 32 * 2**20
"""Bytes that frames in flight and compressors may take together, and more for each thread."""
_AHEAD = 2
_CORES_A_CHAIN = 4
"""With so many threads for each, more files and volumes than one are hashed at once."""


def write_bundle(
    recipe: Recipe,
    folders: Sequence[Path],
    *,
    threads: int | None = None,
    replace: bool = False,
    reporter: Reporter = SILENT,
) -> Manifest:
    """Write a bundle, or go on with one that was interrupted.

    The same recipe gives the same volumes, manifest and sums. With another recipe, an unfinished bundle in
    the folders is started over; a finished one is kept, and returned if it is of this very recipe.

    :param folders: the bundle's own folders; several are disks that are filled in turn.
    :param threads: compressing threads; ``None``: one for each processor.
    :param replace: whether a finished bundle of another recipe may be replaced.
    :raises DamagedError: a file isn't what was promised; the bundle keeps what comes before it.
    :raises DestinationError: the folders hold something else, or another bundler is at work there.
    :raises UsageError: so many volumes that nobody would read their sums.
    :raises PreflightError: the disks are full; what is written is kept.
    """
    plan = plan_stream(recipe)
    small_files.check_companions(recipe)
    small_files.check_volume_size(recipe, plan)
    key = stream_key(recipe, plan)
    replacing.take_place(folders)
    media = Media(folders, small_files.reserve(recipe, plan))
    media.check_foreign(recipe.companions)
    with _journal(media, key) as journal:
        if journal.subject != key:
            whole = find_finished(recipe, key, folders)
            if whole is not None:
                return whole
            if not _goes_beside(recipe, plan, folders, replace=replace, reporter=reporter):
                for folder in filter(is_bundle, folders):
                    replacing.clear(folder)
                journal.start(key)
        if journal.subject == key:
            written = Written(plan, recipe.volume_size, journal)
            _write_volumes(recipe, plan, media, written, threads or default_threads(), reporter)
            return small_files.write(recipe, plan, key, media, written, threads=threads, reporter=reporter)
    beside = [*map(replacing.beside, folders)]
    manifest = write_bundle(recipe, beside, threads=threads, replace=True, reporter=reporter)
    replacing.take_place(folders)
    return manifest


@contextmanager
def _journal(media: Media, key: str) -> Iterator[Journal[PackRecord]]:
    """Open the journal; it goes where all is done, and where it was opened for the lock alone."""
    with closing(Journal(media.folders[0] / PACK_JOURNAL, PackRecord)) as journal:
        try:
            yield journal
        except BaseException:
            if journal.subject != key:
                journal.remove()
            raise
        journal.remove()


def _goes_beside(
    recipe: Recipe, plan: StreamPlan, folders: Sequence[Path], *, replace: bool, reporter: Reporter
) -> bool:
    """Tell whether the bundle is written beside one that it replaces.

    :raises DestinationError: a finished one is here, and may not be replaced.
    """
    there = [folder for folder in folders if is_bundle(folder)]
    if there and not replace:
        raise DestinationError(
            "a finished bundle of other content is here",
            where=there[0],
            hint="give the new one another name or folder, or say that it may be replaced (--replace)",
        )
    if replacing.is_begun(folders):
        return True
    needed = plan.size + plan.size // 1024 + least_bytes(recipe.parity, recipe.volume_size, plan.size)
    if there and replacing.has_room(folders, needed, small_files.reserve(recipe, plan)):
        reporter.say("the bundle that is here stays until the new one is whole")
        return True
    if there:
        reporter.say(f"no room for {size_text(needed)} beside the bundle that is here: it is removed first")
    return False


def _write_volumes(
    recipe: Recipe, plan: StreamPlan, media: Media, written: Written, threads: int, reporter: Reporter
) -> None:
    if written.position:
        reporter.say(f"going on: {size_text(written.position)} of {size_text(plan.size)} are written")
    with reporter.phase("write", plan.size, done=written.position) as meter:
        _write_stream(recipe, plan, media, written, threads, meter)


def _write_stream(
    recipe: Recipe, plan: StreamPlan, media: Media, written: Written, threads: int, meter: Meter
) -> None:
    """Write until the stream is complete, on the next disk where one is full."""
    while True:
        before = written.position
        restored = restore(written, plan, media)
        meter.advance(written.position - before)
        if written.complete and restored.volume is None:
            return
        try:
            _Pass(recipe, plan, media, written, threads, meter).run(restored)
        except OutOfSpaceError as problem:
            most = min(written.volume_size, written.room_needed())
            if not media.another(problem.folder, most):
                raise out_of_space(problem.folder) from problem
        except ContentError as problem:
            written.cut(plan.frame_at(plan.places[problem.member].header))
            raise


@dataclass
class _ReadFrame:
    """What is known of a frame once it is read."""

    links: list[tuple[Link, memoryview]]
    """Its pieces of files, on their way into the files' digests."""
    ended: list[tuple[int, Chain]]
    """The files that end in it."""


@dataclass
class _InFlight:
    """A frame on its way from the sources to a volume."""

    content: memoryview
    reading: Future[_ReadFrame]


class _Pass:
    """One run over the rest of the stream.

    One thread reads, this one writes, both in order; frames are compressed in a pool, and files and volumes
    are hashed in threads of their own. Buffers are few and used again, so that memory stays flat.
    """

    def __init__(
        self, recipe: Recipe, plan: StreamPlan, media: Media, written: Written, threads: int, meter: Meter
    ) -> None:
        self._recipe, self._plan, self._media, self._written = recipe, plan, media, written
        self._threads = _bounded(threads, recipe)
        self._meter = meter
        self._free: list[bytearray] = []
        self._first = len(written.stored)
        # What comes from a network is read by this thread: an interrupt ends that wherever it hangs.
        self._from_disk = all(isinstance(m.source, FileSource) for m in plan.members if m.kind == "file")

    def run(self, restored: Restored) -> None:
        """Write the stream's rest."""
        position, at_once = self._written.position, max(1, self._threads // _CORES_A_CHAIN)
        self._reader = StreamReader(self._plan, position)
        self._chains = Chains(at_once, "content-digest")
        self._contents = ContentDigests(self._plan, self._chains, position, restored.content)
        output = VolumeWriter(self._written, self._media, restored.volume, Chains(at_once, "volume-digest"))
        reading = ThreadPoolExecutor(1, "read")
        try:
            ahead = self._threads + _AHEAD + self._threads // 2
            frames_read = self._start(reading)
            with closing(in_order(self._pack, frames_read, self._threads, "compress", ahead=ahead)) as packed:
                self._write(packed, output)
        finally:
            reading.shutdown(cancel_futures=True)
            self._chains.close()
            output.close()
            self._reader.close()

    def _write(self, packed: Iterable[tuple[_InFlight, tuple[bytes, str]]], output: VolumeWriter) -> None:
        ended: deque[tuple[int, Chain]] = deque()
        for frame, (stored, digest) in packed:
            read = frame.reading.result()
            for link, _ in read.links:
                if link.held:
                    link.passed.wait()
            self._free.append(frame.content.obj)  # type: ignore[arg-type]
            ended += read.ended
            output.add(stored, digest, self._digests(ended, wait=False))
            self._meter.advance(len(frame.content))
        output.finish(self._digests(ended, wait=True))

    def _digests(self, ended: deque[tuple[int, Chain]], *, wait: bool) -> list[tuple[int, str]]:
        """Take the digests of files that ended, of those that have theirs."""
        done = []
        while ended and (wait or ended[0][1].result.done()):
            number, chain = ended.popleft()
            done.append((number, self._contents.digest(number, chain)))
        return done

    def _start(self, pool: ThreadPoolExecutor) -> Iterator[_InFlight]:
        """Read frame after frame, as they are asked for."""
        for begin, end in pairwise(self._plan.frames[self._first :]):
            buffer = self._free.pop() if self._free else bytearray(self._recipe.frame_size)
            content = memoryview(buffer)[: end - begin]
            if self._from_disk:
                yield _InFlight(content, pool.submit(self._read, content))
            else:
                reading: Future[_ReadFrame] = Future()
                reading.set_result(self._read(content))
                yield _InFlight(content, reading)

    def _read(self, content: memoryview) -> _ReadFrame:
        self._chains.settle()
        return _ReadFrame(*self._contents.feed(self._reader.fill(content)))

    def _pack(self, frame: _InFlight) -> tuple[bytes, str]:
        for link, data in frame.reading.result().links:
            if not link.held:
                link.seen.set_result(frames.digest(data))
        stored = frames.compress(frame.content, self._recipe.level)
        return stored, frames.digest(stored)


def _bounded(threads: int, recipe: Recipe) -> int:
    """Return how many threads' frames and compressors fit into the memory there is for them."""
    each = 3 * recipe.frame_size + frames.context_size(recipe.level, recipe.frame_size)
    fitting = (_MEMORY + threads * _MEMORY_A_THREAD - _AHEAD * 2 * recipe.frame_size) // each
    return max(1, min(threads, MOST_THREADS, fitting))
