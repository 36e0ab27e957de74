"""A file's bytes from its origins: retried, gone on with after a cut, turned to the next origin.

An origin opens a file at some place; :class:`Transfer` is the one loop that asks origins again. What keeps
the bytes, a file on the disk or a reader of the archive, takes them from there.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import KW_ONLY, InitVar, dataclass
from typing import TYPE_CHECKING

from bundler.collect.faults import (
    BeginAnew,
    NoRanges,
    Permanent,
    Stopped,
    TooLong,
    Transient,
    UnreachableError,
    WrongLength,
)
from bundler.errors import DamagedError, FetchError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Generator, Iterator, Sequence

    from bundler.collect.network import Origin

FORGIVEN = 1 << 20
"""Bytes that an attempt must bring to count as progress: after it, the retries are counted anew."""
AGAIN = "run the same command again: it goes on where it stopped"


@dataclass(frozen=True)
class Patience:
    """How often and how long is waited for a host that fails."""

    attempts: int = 6
    """For each origin, without progress."""
    first_wait: float = 0.5
    """Seconds; doubled each time, with jitter."""
    longest_wait: float = 30.0
    longest_retry_after: float = 300.0
    """The most that a host's ``Retry-After`` is obeyed."""

    def wait(self, failures: int, asked: float | None, stop: threading.Event) -> None:
        """Wait before the next attempt, at least the seconds that the host ``asked`` for.

        :raises Stopped: ``stop`` was set meanwhile.
        """
        seconds = self.first_wait * 2 ** (failures - 1) * random.uniform(0.75, 1.25)
        seconds = min(seconds, self.longest_wait)
        if asked is not None:
            seconds = max(seconds, min(asked, self.longest_retry_after))
        if stop.wait(seconds):
            raise Stopped


PATIENT = Patience()


@dataclass(frozen=True, slots=True)
class Body:
    """The bytes of a file from some place on, as they arrive."""

    start: int
    """Where the answer begins: 0 where the range was ignored."""
    total: int | None
    """The whole file's size as the origin says it now."""
    chunks: Iterator[bytes]
    validator: str = ""
    """What tells later whether the file is still the same: its strong ETag or modification time."""
    encoding: str = ""
    """How the host compressed it, unasked."""


@dataclass
class _Asked:
    """An origin and how it behaved."""

    origin: Origin
    validator: str = ""
    failures: int = 0
    end: Permanent | None = None
    """Why it isn't asked any more."""


@dataclass
class Transfer:
    """One file's bytes, from whichever of its origins gives them; they are tried in their order."""

    name: str
    origins: InitVar[Sequence[Origin]]
    size: int | None
    """Bytes, where known."""
    _: KW_ONLY
    stop: threading.Event
    """Ends the transfer once it is set."""
    patience: Patience = PATIENT
    checked: bool = True
    """A digest is compared at the end, so that a changed file can't pass for its beginning."""

    def __post_init__(self, origins: Sequence[Origin]) -> None:
        self._asked = [_Asked(origin) for origin in origins]
        self._last = self._asked[0]

    def pieces(
        self,
        start: int = 0,
        end: int | None = None,
        *,
        skip: bool = False,
        ranges_only: bool = False,
        validators: dict[str, str] | None = None,
        opened: Callable[[str, str], None] | None = None,
    ) -> Generator[tuple[int, bytes], None, None]:
        """Yield pieces with their places; a place before the last one means that the file began anew.

        :param end: the place where it may end; the file's own end where not given.
        :param skip: never go back: what came already is passed over where the file began anew.
        :param ranges_only: read nothing from a host that begins elsewhere than it was asked to.
        :param validators: of earlier answers, by ``where``.
        :param opened: told an origin's ``where`` and validator as it answers.
        :raises FetchError: no origin gave it, after retries.
        :raises DamagedError: its length stays another one.
        :raises NoRanges: with ``ranges_only``, of such a host.
        :raises Stopped: it was told to stop.
        """
        place, anew = start, False
        last = self.size if end is None else end
        while last is None or place < last:
            asked = self._last = self._next()
            asked.validator = asked.validator or (validators or {}).get(asked.origin.where, "")
            before = place
            sure = self.checked or bool(asked.validator)
            try:
                begin = place if sure and not anew else 0
                with asked.origin.open(begin, end, asked.validator) as body:
                    if self.size is not None and body.total not in (None, self.size):
                        # A portal's page instead of the file, say: none of it is read.
                        raise self._another_length(WrongLength, str(body.total), body)
                    if ranges_only and body.start != begin:
                        raise NoRanges
                    asked.validator = body.validator
                    if opened is not None:
                        opened(asked.origin.where, body.validator)
                    anew, place = False, place if skip else body.start
                    for at, piece in self._rest(body, place):
                        place = at + len(piece)
                        yield at, piece
                        if end is not None and place >= end:
                            return
                if last is None:
                    return
                if place < last and body.encoding:
                    raise BeginAnew(f"the host sent it compressed ({body.encoding})", tries=4)
                if place < last:
                    raise Transient(f"the connection ended after {place} of {self.size} bytes")
            except Permanent as problem:
                asked.end = problem
            except Transient as problem:
                if ranges_only and isinstance(problem, BeginAnew):
                    raise NoRanges from problem
                anew = anew or isinstance(problem, BeginAnew)
                self._count(asked, problem, fresh=place - before >= FORGIVEN)

    def _rest(self, body: Body, place: int) -> Iterator[tuple[int, bytes]]:
        at = body.start
        for chunk in body.chunks:
            if self.stop.is_set():
                raise Stopped
            piece = chunk[max(place - at, 0) :]
            at += len(chunk)
            if self.size is not None and at > self.size:
                raise self._another_length(TooLong, f"more than {self.size}", body)
            if piece:
                yield at - len(piece), piece

    def read(self, start: int, length: int) -> bytes:
        """Return some bytes of the file; fewer at its end.

        :raises BundlerError: as :meth:`pieces`.
        """
        end = start + length if self.size is None else min(start + length, self.size)
        found = b"".join(piece for _, piece in self.pieces(start, end, skip=True))
        return found[:length]

    def damaged(self, findings: Sequence[str]) -> DamagedError:
        """Count wrong bytes against the origin that gave them; return the error that tells of them."""
        self._last.failures += 1
        return DamagedError(
            f"{self.name} arrived twice with other bytes than the publisher promised",
            where=self._last.origin.where,
            hint=self._last.origin.mend,
            findings=findings,
        )

    def _next(self) -> _Asked:
        """Return the origin with the fewest failures, or raise what ended the last of them."""
        if self.stop.is_set():
            raise Stopped
        alive = [asked for asked in self._asked if asked.end is None]
        if alive:
            return min(alive, key=lambda asked: asked.failures)
        ends = [(asked.origin, asked.end) for asked in self._asked if asked.end]
        origin, last = ends[-1]
        kind: type[FetchError | DamagedError] = FetchError
        if all(end.exhausted for _, end in ends):
            kind = UnreachableError
        if any(end.damaged for _, end in ends):
            kind = DamagedError
        raise kind(
            last.what if origin.title else f"can't download {self.name}: {last.what}",
            where=origin.where,
            hint=last.hint,
            findings=[f"{one.where}: {end.what}" for one, end in ends] if len(ends) > 1 else [],
        )

    def _count(self, asked: _Asked, problem: Transient, *, fresh: bool) -> None:
        """Count a passing failure, and wait before the next attempt unless another origin is to be tried."""
        asked.failures = 1 if fresh else asked.failures + 1
        if asked.failures >= min(self.patience.attempts, problem.tries or self.patience.attempts):
            asked.end = self._given_up(asked, problem)
            return
        if any(other.end is None and other.failures < asked.failures for other in self._asked):
            return
        self.patience.wait(asked.failures, problem.wait, self.stop)

    def _given_up(self, asked: _Asked, problem: Transient) -> Permanent:
        title, times = asked.origin.title, asked.failures
        if isinstance(problem, WrongLength):
            return Permanent(problem.what, asked.origin.mend, damaged=True)
        what = f"{title} failed {times} times in a row: {problem.what}"
        return Permanent(
            what if title else f"{problem.what}, {times} times",
            AGAIN if title else problem.hint,
            exhausted=True,
        )

    def _another_length(self, kind: type[WrongLength], found: str, body: Body) -> WrongLength:
        how = f" ({body.encoding})" if body.encoding else ""
        return kind(f"{self.name} has {found} bytes{how} at its address, {self.size} are expected", tries=4)


class RunningDigests:
    """The digests that a publisher may have given of a file, computed while it passes."""

    def __init__(
        self, size: int | None, sha256: str | None, git_sha1: str | None = None, md5: str | None = None
    ) -> None:
        """Begin a file of so many bytes, with the publisher's sha256, git blob id or md5, hex."""
        self._size, self._promised, self._blob = size, sha256, git_sha1
        self._sha256 = hashlib.sha256()
        self._git = hashlib.sha1(b"blob %d\0" % (size or 0), usedforsecurity=False) if git_sha1 else None
        self._expected_md5 = md5
        self._md5 = hashlib.md5(usedforsecurity=False) if md5 else None
        self.size = 0
        """Bytes that passed."""

    def update(self, data: bytes | memoryview) -> None:
        """Add bytes."""
        self._sha256.update(data)
        self.size += len(data)
        for digest in (self._git, self._md5):
            if digest is not None:
                digest.update(data)

    @property
    def sha256(self) -> str:
        """The sha256 of what passed."""
        return self._sha256.hexdigest()

    @property
    def wrong(self) -> list[str]:
        """What differs from the publisher's word, a line for what is expected and one for what came."""
        if self._promised is not None and self.sha256 != self._promised:
            name, expected, got = "sha256", self._promised, self.sha256
        elif self._git is not None and self._git.hexdigest() != self._blob:
            name, expected, got = "git blob", str(self._blob), self._git.hexdigest()
        elif self._md5 is not None and self._md5.hexdigest() != self._expected_md5:
            name, expected, got = "md5", str(self._expected_md5), self._md5.hexdigest()
        elif self._size is not None and self.size != self._size:
            name, expected, got = "sha256", "unknown", self.sha256
        else:
            return []
        bytes_expected = "unknown" if self._size is None else self._size
        return [
            f"expected {name} {expected}, {bytes_expected} bytes",
            f"got      {name} {got}, {self.size} bytes",
        ]
