"""An installation updated: the next generation is made beside the one that counts, which stays as it is.

A generation is a whole installation. What the bundle brings and the older one has is cloned or linked, what
the bundle doesn't name is carried on, the environments are installed from the caches that all share. What
counts is switched in one step, when all of it is whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

import msgspec

from bundler import generations
from bundler.archive.bundle import Bundle, find_bundle
from bundler.archive.donor import Donor, refuse_lacking
from bundler.archive.journal import Journal
from bundler.archive.unpack_state import UnpackRecord
from bundler.common.durable import holds_file
from bundler.errors import DestinationError, UnknownNameError
from bundler.generations import FIRST, Generations, Step, root_of
from bundler.installation import JOURNAL, RECEIPT, Installation, now
from bundler.serve.server_record import run_folder, servers
from bundler.work.carry import differs
from bundler.work.running import restart, runs_from, say_servers

if TYPE_CHECKING:
    from pathlib import Path

    from bundler.common.progress import Reporter


@dataclass(frozen=True)
class Place:
    """Where a bundle is unpacked to."""

    home: Path
    """The installation's own folder."""
    root: Path
    """The folder of the generation."""
    old: Installation | None = None
    """The generation before, where this is an update."""
    sources: tuple[Installation | Bundle, ...] = ()
    """What has files of the bundle: the installation that is updated or added to, and what was named."""

    @cached_property
    def donor(self) -> Donor | None:
        """What gives files, so that they needn't be unpacked."""
        installations = [one for one in self.sources if isinstance(one, Installation)]
        bundle = next((one for one in self.sources if not isinstance(one, Installation)), None)
        return Donor(*installations, bundle=bundle) if self.sources else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for one in self.sources:
            if not isinstance(one, Installation):
                one.close()


def place_for(bundle: Bundle, destination: Path, source: Path | None = None) -> Place:
    """Say where a bundle goes: a new folder, the generation that counts, or a new generation.

    It is an update where the installation there has other files of the bundle's names.

    :param source: an installation or a bundle that has files of the bundle, too.
    :raises InputError: what is there can't be read, or the source is neither.
    """
    home = destination.absolute()
    named = (_named(source),) if source else ()
    if not holds_file(home, RECEIPT):
        return Place(home, home, sources=named)
    old = Installation(home)
    there = old.entries
    if not any(differs(entry, there.get(entry.path)) for entry in bundle.manifest.tree):
        return Place(home, old.root, sources=(old, *named))
    whole = generations.read(home).whole
    unfinished = [number for number in generations.further(home) if number not in whole]
    begun = [number for number in unfinished if _subject(root_of(home, number)) == bundle.manifest_sha256]
    number = begun[0] if begun else max([FIRST, *whole, *unfinished]) + 1
    return Place(home, root_of(home, number), old, (old, *named))


def _named(source: Path) -> Installation | Bundle:
    """Open what is to give files. What it says of them is compared before it is believed.

    :raises UnknownNameError: it is neither an installation nor a bundle.
    """
    if holds_file(source, RECEIPT):
        return Installation(source.absolute())
    try:
        return Bundle.open([find_bundle(source)])
    except UnknownNameError as problem:
        raise UnknownNameError(
            f"nothing can be taken over from there: no installation, and {problem.what}",
            where=source,
            hint="--from names an installation's folder, or an older bundle's",
        ) from problem


def check_base(bundle: Bundle, place: Place) -> None:
    """Refuse a delta whose base isn't here, before anything is written.

    :raises MissingVolumeError: naming what lacks.
    """
    held = [entry for entry in bundle.manifest.tree if entry.offset < 0]
    if held:
        donor = place.donor
        lacking = [entry for entry in held if donor is None or not donor.has(entry)]
        refuse_lacking(bundle.manifest, lacking, place.home)


def _subject(root: Path) -> str | None:
    """Return the sha256 of the manifest that is being unpacked to a folder."""
    if not (root / JOURNAL).is_file():
        return None
    journal = Journal(root / JOURNAL, UnpackRecord)
    journal.close()
    return journal.subject


def begin(place: Place, reporter: Reporter) -> None:
    """Make room for a new generation: what other updates left unfinished goes.

    :raises DestinationError: it can't be removed.
    """
    if place.old is None:
        return
    whole = generations.read(place.home).whole
    for number in generations.further(place.home):
        if number not in whole and root_of(place.home, number) != place.root:
            reporter.say(f"generation {number} was never finished, and is removed")
            _remove(place.home, number)
    number, before = generations.number_of(place.root), generations.number_of(place.old.root)
    reporter.say(f"updating {place.home}: generation {number} is made beside {before}, which stays as it is")
    place.root.mkdir(parents=True, exist_ok=True)


def finish(place: Place, bundle: Bundle, keep: int, reporter: Reporter, *, restarts: bool = False) -> None:
    """Let the new generation count, and remove those older ones that aren't to be kept.

    :param keep: how many older generations stay.
    :param restarts: whether systemd's units are restarted that serve from another.
    :raises ServeError: one didn't come up.
    """
    if place.old is None:
        return
    number, before = generations.number_of(place.root), generations.read(place.home)
    signed = bundle.provenance.signature_text
    step = Step(number=number, what="update", when=now(), bundle=bundle.name, signed=signed)
    _switch(place.home, before, number, step)
    reporter.say(f"generation {number} counts now; bundler rollback brings {before.current} back")
    if restarts:
        restart(place.home, number, reporter)
    say_servers(place.home, number, reporter)
    prune(place.home, keep, reporter)


def roll_back(home: Path, to: int | None, reporter: Reporter, *, restarts: bool = False) -> int:
    """Let an older generation count again.

    :param to: its number; ``None``: the one that counted before.
    :param restarts: whether systemd's units are restarted that serve from another.
    :returns: the number that counts now.
    :raises UnknownNameError: there is no such generation.
    :raises ServeError: a unit didn't come up.
    """
    known = generations.read(home)
    earlier = [one.number for one in known.steps if one.number in known.whole]
    if to is None:
        others = [number for number in [FIRST, *earlier] if number in known.whole and number != known.current]
        to = others[-1] if others else None
    if to is None or to not in known.whole or to == known.current:
        have = ", ".join(str(number) for number in known.whole if number != known.current) or "none"
        what = f"generation {to}" if to is not None else "older generation"
        raise UnknownNameError(
            f"there is no {what} to go back to; there are: {have}",
            where=home,
            hint="bundler history lists them"
            if have != "none"
            else "an update makes one: bundler unpack BUNDLE DEST",
        )
    _switch(home, known, to, Step(number=to, what="rollback", when=now()))
    if restarts:
        restart(home, to, reporter)
    say_servers(home, to, reporter)
    return to


def _switch(home: Path, before: Generations, number: int, step: Step) -> None:
    whole = tuple(sorted({*before.whole, number}))
    generations.write(home, Generations(current=number, whole=whole, steps=(*before.steps, step)))


def prune(home: Path, keep: int, reporter: Reporter) -> None:
    """Remove older generations, but those that a server runs from.

    :param keep: how many of them stay.
    """
    known = generations.read(home)
    older = [number for number in known.whole if number != known.current]
    for number in older[: max(0, len(older) - keep)]:
        if running := [
            one for one in servers(run_folder(home)) if one.running and runs_from(one, home, number)
        ]:
            reporter.say(
                f"generation {number} stays: the server of {running[0].model} on port {running[0].port} "
                "runs from it"
            )
            continue
        known = msgspec.structs.replace(known, whole=tuple(one for one in known.whole if one != number))
        generations.write(home, known)
        reporter.say(f"generation {number} is removed")
        _remove(home, number)


def _remove(home: Path, number: int) -> None:
    try:
        generations.remove(home, number)
    except OSError as problem:
        raise DestinationError(
            f"generation {number} can't be removed: {problem.strerror}",
            where=problem.filename or root_of(home, number),
            hint="end what runs from it; the same command goes on",
        ) from problem
