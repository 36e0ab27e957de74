"""Unpacking: one pass, parallel, journalled; a file with its own name is a whole file."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bundler.archive import frames, survey
from bundler.archive.batches import Batches
from bundler.archive.damage import Damage, refuse_damage, refuse_waiting
from bundler.archive.donor import refuse_lacking, take_over
from bundler.archive.target import Target, full, refusal, tells_case
from bundler.archive.turns import files_at_once, in_turns
from bundler.archive.unpack_state import UnpackState
from bundler.archive.volume_check import check_volumes
from bundler.archive.volume_reader import FileVolume, crowds
from bundler.common.disk_trouble import REFUSALS
from bundler.common.durable import write_atomically
from bundler.common.progress import SILENT
from bundler.common.threads import default_threads, in_order
from bundler.common.units import size_text
from bundler.errors import DamagedError
from bundler.installation import BUNDLES, PARTIAL, SeenFile, Waiting, note_waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from bundler.archive.bundle import Bundle
    from bundler.archive.donor import Donor
    from bundler.archive.layout import Frame
    from bundler.common.progress import Meter, Reporter
    from bundler.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    """A bundle's files, all in place."""

    root: Path
    manifest: Manifest
    manifest_sha256: str
    files: tuple[SeenFile, ...]
    """Each file as it is now, for the receipt."""
    written: int
    """Bytes that this run wrote."""
    kept: int
    """Files that were there already, with this content."""
    checked: str
    """What was compared with what, for the receipt."""


def unpack_bundle(
    bundle: Bundle,
    destination: Path,
    *,
    threads: int | None = None,
    partial: bool = False,
    verify_first: bool = False,
    donor: Donor | None = None,
    reporter: Reporter = SILENT,
    tells_case: Callable[[Path], bool] = tells_case,
) -> Unpacked:
    """Unpack a bundle, or go on with one; nothing is installed.

    :param destination: a new or empty folder, or an installation, to which the bundle is added.
    :param threads: ``None``: one for each processor.
    :param partial: whether missing volumes are to be waited for: what is here is unpacked.
    :param verify_first: read and check the whole bundle before the first write.
    :param donor: an installation whose files of the same sha256 are taken over.
    :param tells_case: whether a folder's file system tells upper from lower case.
    :raises MissingVolumeError: volumes missing, short or swapped; nothing was written.
    :raises DestinationError: the destination holds something else.
    :raises PreflightError: no space, no permission, an unfit file system.
    :raises DamagedError: frames were damaged; the rest is unpacked, and the same command goes on with these.
    :raises PartialError: the volumes that are here are unpacked; the same command goes on with others.
    """
    survey.check_place(bundle, destination)
    check_volumes(bundle, partial=partial)
    workers = threads or default_threads()
    if verify_first:
        from bundler.archive.verify import verify_bundle

        verify_bundle(bundle, threads=workers, partial=partial, deep=True, reporter=reporter)
    with Target(destination) as target:
        try:
            survey.check_case(bundle.manifest, destination, tells_case)
            with closing(UnpackState(bundle, target)) as state:
                run = _Unpack(bundle, target, state, workers, verify_first)
                if donor is not None:
                    run.make_folders()
                    take_over(donor, bundle.manifest, target, state, reporter)
                return run.run(reporter)
        except OSError as problem:
            if problem.errno in REFUSALS:
                raise refusal(problem, destination) from problem
            raise


class _Unpack:
    """One run."""

    def __init__(
        self, bundle: Bundle, target: Target, state: UnpackState, threads: int, verified: bool
    ) -> None:
        self._bundle, self._target, self._state, self._threads = bundle, target, state, threads
        self._verified = verified
        self._damages: list[Damage] = []
        self._written = 0

    def run(self, reporter: Reporter) -> Unpacked:
        """Unpack what isn't there yet."""
        found = survey.survey(self._bundle, self._target, self._state, self._threads, reporter)
        survey.refuse_conflicts(found.conflicts, self._target.root)
        held = (
            (number, entry) for number, entry in enumerate(self._bundle.manifest.tree) if entry.offset < 0
        )
        lacking = [entry for number, entry in held if number not in found.kept]
        refuse_lacking(self._bundle.manifest, lacking, self._target.root)
        needed = self._state.prepare(found.kept)
        missing = self._state.bytes_missing()
        if missing > (free := self._target.free()):
            raise full(self._target.root, missing, free)
        self.make_folders()
        self._state.place_ready()
        here = [number for number in needed if self._is_here(number)]
        self._bundle.expect(here)
        total = self._bundle.manifest.stream_size
        todo = sum(self._bundle.manifest.frames.raw[number] for number in needed)
        if todo < total:
            reporter.say(f"going on: {size_text(total - todo)} of {size_text(total)} are here already")
        with reporter.phase("unpack", total, done=total - todo) as meter:
            self._write(here, meter)
            while again := self._state.take_again():
                meter.say("what an earlier run wrote was altered since: it is written again")
                needed += again
                here += [number for number in again if self._is_here(number)]
                self._write([number for number in again if self._is_here(number)], meter)
        self._bundle.expect(())
        refuse_damage(self._bundle, self._damages, self._state.remaining())
        waiting = self._volumes_of(set(needed) - set(here))
        note_waiting(self._target.root, Waiting(bundle=self._bundle.name, volumes=waiting))
        refuse_waiting(waiting, self._state.remaining())
        self._finish()
        return self._result(len(found.kept))

    def _is_here(self, number: int) -> bool:
        return self._volume(number) in self._bundle.volumes

    def _volume(self, number: int) -> str:
        return self._bundle.manifest.volumes[self._bundle.layout.frame(number).volume].name

    def _volumes_of(self, numbers: Iterable[int]) -> tuple[str, ...]:
        return tuple(sorted({self._volume(number) for number in numbers}))

    def make_folders(self) -> None:
        """Make the tree's folders, and those for files under way."""
        for entry in self._bundle.manifest.tree:
            if entry.kind == "dir":
                for folder in (entry.path, f"{PARTIAL}/{entry.path}"):
                    self._target.make_folder(folder)

    def _write(self, numbers: list[int], meter: Meter) -> None:
        """Write frames; what was written stays, also when this ends early."""
        placed = frozenset(self._state.placed)

        crowding = crowds(sum(self._bundle.manifest.frames.stored[number] for number in numbers))

        def work(number: int) -> Damage | None:
            frame = self._bundle.layout.frame(number)
            damage = self._write_frame(frame, placed)
            if crowding:
                self._bundle.forget(frame)
            return damage

        batches = Batches(self._state.commit, "unpack-sync")
        frames_in_turn = in_turns(numbers, self._bundle.layout, self._files_at_once())
        try:
            with closing(in_order(work, frames_in_turn, self._threads, "unpack")) as results:
                for number, damage in results:
                    raw = self._bundle.manifest.frames.raw[number]
                    meter.advance(raw)
                    if damage:
                        self._damages.append(damage)
                        meter.say(f"damaged: {damage.text(self._bundle)}")
                    else:
                        self._written += raw
                        batches.add(number, raw)
            batches.flush()
        finally:
            batches.close()

    def _files_at_once(self) -> int:
        volumes = self._bundle.volumes.values()
        folders = {volume.path.parent for volume in volumes if isinstance(volume, FileVolume)}
        if not all(isinstance(volume, FileVolume) for volume in volumes):
            return 1  # a network's are read front to back
        return files_at_once({self._target.root, *folders}, self._threads)

    def _write_frame(self, frame: Frame, placed: frozenset[int]) -> Damage | None:
        """Read, check, decompress and write one frame; of a damaged one nothing is written."""
        stored, content = frames.room("stored", frame.stored), frames.room("content", frame.raw)
        try:
            self._bundle.read(frame, stored)
            frames.decompress(stored, content)
        except DamagedError as problem:
            return Damage(frame, problem.what)
        for name in self._bundle.layout.differences(frame, content):
            return Damage(frame, f"its tar stream differs from the manifest at {name}")
        for piece in self._bundle.layout.slices(frame):
            if piece.entry not in placed:
                entry = self._bundle.manifest.tree[piece.entry]
                self._target.write(entry, piece.at, content[piece.begin : piece.end])
        return None

    def _finish(self) -> None:
        """Make links, make all names durable, and keep the manifest as the sign that the bundle is here."""
        for entry in self._bundle.manifest.tree:
            if entry.kind == "link":
                self._target.make_link(entry.path, entry.target)
        for entry in self._bundle.manifest.tree:
            if entry.kind == "dir":
                self._target.sync_folder(entry.path)
        self._target.sync_folder("")
        kept = self._target.root / BUNDLES / f"{self._bundle.manifest_sha256}.json"
        write_atomically(kept, self._bundle.manifest_data)
        self._target.clear_partials()

    def _result(self, kept: int) -> Unpacked:
        tree = self._bundle.manifest.tree
        files = tuple(
            SeenFile(tree[number].path, tree[number].size, modified, tree[number].sha256)
            for number, modified in sorted(self._state.placed.items())
        )
        checked = "manifest.json against SHA256SUMS; each frame against its BLAKE3 in the manifest"
        if self._verified:
            checked += "; before that, every file of the bundle and every file's sha256"
        return Unpacked(
            root=self._target.root,
            manifest=self._bundle.manifest,
            manifest_sha256=self._bundle.manifest_sha256,
            files=files,
            written=self._written,
            kept=kept,
            checked=checked,
        )
