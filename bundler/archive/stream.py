"""The tar stream as it is made: read from its sources once, front to back, and hashed on the way."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from bundler.archive import tar
from bundler.archive.chain import ChangedError
from bundler.archive.member import FileSource
from bundler.archive.recipe import mode_of
from bundler.errors import DamagedError

if TYPE_CHECKING:
    import hashlib

    from bundler.archive.chain import Chain, Chains, Link
    from bundler.archive.member import Member
    from bundler.archive.recipe import StreamPlan

_HINT = "copy the file again, or add --rehash to fetch it from its hub again; the pack goes on before it"


class ContentError(DamagedError):
    """A file that isn't what was promised, or that changed while it was read."""

    def __init__(self, member: int, what: str, where: object) -> None:
        """Remember which member it is, so that the archive can be cut back to before it."""
        super().__init__(what, where=where, hint=_HINT)
        self.member = member


class Piece(NamedTuple):
    """Some of a file's content, in order."""

    member: int
    data: memoryview
    last: bool
    """Whether the file ends with it."""


class StreamReader:
    """Fills buffers with the stream, one after the other."""

    def __init__(self, plan: StreamPlan, start: int) -> None:
        """Begin at a position of the stream; nothing is opened before it is needed."""
        self._plan = plan
        self._position = start
        self._member = plan.member_at(start)
        self._open = ExitStack()
        self._file: BinaryIO | None = None

    def fill(self, room: memoryview) -> list[Piece]:
        """Fill a buffer with the next bytes of the stream.

        :return: the pieces of files' contents in it.
        :raises ContentError: a file is gone, can't be read, or is longer or shorter than it was.
        """
        pieces: list[Piece] = []
        done = 0
        while done < len(room):
            done += self._fill_some(room[done:], pieces)
        return pieces

    def close(self) -> None:
        """Close the file that is being read."""
        self._file = None
        self._open.close()

    def _fill_some(self, room: memoryview, pieces: list[Piece]) -> int:
        plan, position = self._plan, self._position
        if self._member == len(plan.members):
            return self._put(room, plan.ending, position - (plan.size - len(plan.ending)))
        member, place = plan.members[self._member], plan.places[self._member]
        if position < place.content:
            fixed = tar.header(member.path, member.kind, mode_of(member), member.size, member.target)
            return self._put(room, fixed, position - place.header)
        if position < place.content + member.size:
            return self._put_content(room[: place.content + member.size - position], pieces)
        return self._put(room, bytes(place.end - position), 0)

    def _put(self, room: memoryview, fixed: bytes, begin: int) -> int:
        part = fixed[begin : begin + len(room)]
        room[: len(part)] = part
        self._advance(len(part))
        return len(part)

    def _put_content(self, room: memoryview, pieces: list[Piece]) -> int:
        number = self._member
        member, place = self._plan.members[number], self._plan.places[number]
        try:
            if self._file is None:
                self._file = self._open_at(member, self._position - place.content)
            _fill_from(self._file, room)
            last = self._position + len(room) == place.content + member.size
            if last and self._file.read(1):
                raise ContentError(number, f"{member.path} grew while it was packed", _where(member))
        except EOFError:
            raise ContentError(
                number, f"{member.path} is shorter than its {member.size} bytes", _where(member)
            ) from None
        except OSError as problem:
            what = f"{member.path} can't be read: {problem.strerror or problem}"
            raise ContentError(number, what, _where(member)) from problem
        pieces.append(Piece(number, room, last))
        self._advance(len(room))
        return len(room)

    def _open_at(self, member: Member, offset: int) -> BinaryIO:
        assert member.source is not None  # the plan refuses a file without a source
        file = self._open.enter_context(member.source.open())
        if offset and file.seekable():
            file.seek(offset)
        elif offset:
            spare = memoryview(bytearray(min(offset, 2**20)))
            while offset:
                _fill_from(file, spare[: min(offset, len(spare))])
                offset -= min(offset, len(spare))
        return file

    def _advance(self, count: int) -> None:
        self._position += count
        while (
            self._member < len(self._plan.members) and self._position >= self._plan.places[self._member].end
        ):
            self.close()
            self._member += 1


def _fill_from(file: BinaryIO, room: memoryview) -> None:
    """Fill a buffer from a file.

    :raises EOFError: the file ends before.
    """
    into: Any = getattr(file, "readinto", None)
    done = 0
    while done < len(room):
        if into is not None:
            count = into(room[done:])
        else:
            data = file.read(len(room) - done)
            count = len(data)
            room[done : done + count] = data
        if not count:
            raise EOFError
        done += count


def _where(member: Member) -> object:
    return getattr(member.source, "path", member.path)


class ContentDigests:
    """The sha256 of the files whose contents pass, in the stream's order."""

    def __init__(
        self, plan: StreamPlan, chains: Chains, position: int, started: hashlib._Hash | None = None
    ) -> None:
        """Begin.

        :param position: where the stream goes on.
        :param started: the hash of the first file's content before that.
        """
        self._plan, self._chains, self._position, self._started = plan, chains, position, started
        self._chain: Chain | None = None

    def feed(self, pieces: list[Piece]) -> tuple[list[tuple[Link, memoryview]], list[tuple[int, Chain]]]:
        """Take pieces.

        :return: each with what becomes of it, and the files that end with one of them.
        """
        links, ended = [], []
        for piece in pieces:
            chain = self._chain = self._chain or self._begin(piece.member)
            links.append((chain.add(piece.data), piece.data))
            if piece.last:
                chain.end()
                ended.append((piece.member, chain))
                self._chain = None
        return links, ended

    def digest(self, number: int, chain: Chain) -> str:
        """Return a file's digest, waiting for it.

        :raises ContentError: it isn't the promised one, or the file changed while it was packed.
        """
        member = self._plan.members[number]
        try:
            digest = chain.result.result()
        except ChangedError:
            raise ContentError(number, f"{member.path} changed while it was packed", _where(member)) from None
        except OSError as problem:
            what = f"{member.path} can't be read: {problem.strerror or problem}"
            raise ContentError(number, what, _where(member)) from problem
        if member.sha256 not in (None, digest):
            what = f"{member.path} is not what its publisher promised: sha256 {digest}, not {member.sha256}"
            raise ContentError(number, what, _where(member))
        return digest

    def _begin(self, number: int) -> Chain:
        source = self._plan.members[number].source
        reopen = source.open if isinstance(source, FileSource) else None
        started, self._started = self._started, None
        position = self._position - self._plan.places[number].content if started else 0
        return self._chains.begin(reopen, started, position)
