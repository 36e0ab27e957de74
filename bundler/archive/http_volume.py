"""A file on another host, read in parts over HTTP; where the host knows no parts, in order."""

from __future__ import annotations

import http.client
import threading
import time
from http import HTTPStatus
from urllib.parse import quote, urlsplit

from bundler.errors import FetchError

CONNECT_SECONDS, SECONDS = 10.0, 60.0
"""How long a connection may take, and an answer, before the host counts as gone."""
WAIT = 30
"""Seconds that a host may keep a request which asks for what it is still unpacking itself."""
PAUSES = (0.5, 1.0, 2.0, 4.0)
"""Seconds before the second try and the next ones."""
REST, LONGEST_REST = 1.0, 64.0
"""Seconds for which a host that doesn't answer is passed over, where there are others: twice as long each
time, up to the second."""
BLOCK = 2**20
OK, PART = int(HTTPStatus.OK), int(HTTPStatus.PARTIAL_CONTENT)


class HttpHost:
    """A host that shares a bundle. Each thread has a connection of its own."""

    def __init__(self, address: str) -> None:
        """Know the address, which ends with a slash; nothing is asked yet."""
        self.address = address
        self._local = threading.local()
        self._until, self._rest = 0.0, REST

    @property
    def resting(self) -> bool:
        """Whether it didn't answer a moment ago."""
        return time.monotonic() < self._until

    def rest(self) -> None:
        """Take it as gone for a while, also where several threads see it at once."""
        if not self.resting:
            self._until, self._rest = time.monotonic() + self._rest, min(2 * self._rest, LONGEST_REST)

    def answered(self) -> None:
        """Know that it is there."""
        self._rest = REST

    def connection(self) -> http.client.HTTPConnection:
        """Return this thread's connection."""
        known: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if known is None:
            parts = urlsplit(self.address)
            kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
            known = self._local.connection = kind(parts.netloc, timeout=CONNECT_SECONDS)
            known.connect()
            known.sock.settimeout(SECONDS)
        return known

    def leave(self) -> None:
        """Let this thread have a new connection next, while an answer is still read from this one."""
        self._local.connection = None

    def drop(self) -> None:
        """Close this thread's connection."""
        known = getattr(self._local, "connection", None)
        self._local.connection = None
        if known is not None:
            known.close()


class HttpVolume:
    """A file of a host's.

    A server that knows no Range is read in order, by one thread at a time: what lies before is read and
    thrown away.
    """

    def __init__(self, host: HttpHost, name: str) -> None:
        """Know its address; nothing is asked yet."""
        self.path = f"{host.address}{quote(name)}"
        self._host = host
        self._lock = threading.Lock()
        self._stream: http.client.HTTPResponse | None = None
        self._at = 0
        self._ranges = True

    def size(self, pauses: tuple[float, ...] = PAUSES) -> int:
        """Return the file's size.

        :raises FetchError: the host doesn't say.
        """
        status, length = self._answer("HEAD", {}, memoryview(b""), pauses)
        if status != OK or length < 0:
            raise self.refusal(status)
        return length

    def read_at(self, offset: int, buffer: memoryview) -> None:
        """Fill the buffer from an offset.

        :raises FetchError: the host doesn't give it, also after some tries.
        """
        status = self.ask(offset, buffer, PAUSES)
        if status != OK:
            raise self.refusal(status)

    def ask(self, offset: int, buffer: memoryview, pauses: tuple[float, ...] = ()) -> int:
        """Fill the buffer from an offset, where the host has that part.

        :param pauses: seconds before each further try where the connection is lost.
        :return: 200: it is filled; 503: the host will have that part, and hasn't yet; else what it answers.
        :raises FetchError: the connection is lost.
        """
        if self._ranges:
            wanted = {"Range": f"bytes={offset}-{offset + len(buffer) - 1}", "Prefer": f"wait={WAIT}"}
            status, filled = self._answer("GET", wanted, buffer, pauses)
            if filled or status != OK:
                return OK if filled else status
            self._ranges = False
        with self._lock:
            self._read_on(offset, buffer)
        return OK

    def refusal(self, status: int) -> FetchError:
        """Return the message for a part that the host doesn't give."""
        said = HTTPStatus(status).phrase if status in {*HTTPStatus} else ""
        return FetchError(f"the host answers {status} {said}".strip(), where=self.path)

    def forget(self, offset: int, size: int) -> None:
        """Do nothing: no cache here holds it."""

    def close(self) -> None:
        """Close this thread's connections."""
        self._host.drop()
        if self._stream is not None:
            self._stream.close()
        self._stream = None

    def _read_on(self, offset: int, buffer: memoryview) -> None:
        """Read from the one answer that is open; what lies before begins it anew."""
        try:
            if self._stream is None or self._at > offset:
                self.close()
                connection = self._host.connection()
                connection.request("GET", urlsplit(self.path).path)
                self._stream, self._at = connection.getresponse(), 0
                self._host.leave()
                if self._stream.status != OK:
                    raise self.refusal(self._stream.status)
            while self._at < offset:
                self._at += len(self._stream.read(min(BLOCK, offset - self._at)) or self._short())
            done = 0
            while done < len(buffer):
                count = self._stream.readinto(buffer[done:])
                done += count or len(self._short())
            self._at += done
        except (OSError, http.client.HTTPException) as problem:
            self.close()
            raise self._lost(problem) from problem

    def _short(self) -> bytes:
        raise http.client.IncompleteRead(b"")

    def _answer(
        self, method: str, headers: dict[str, str], buffer: memoryview, pauses: tuple[float, ...]
    ) -> tuple[int, int]:
        """Ask, and ask again where the connection is lost.

        :param buffer: is filled where the answer is the part that was asked for.
        :return: the status, and how many bytes were filled in or, for ``HEAD``, the file has.
        """
        for pause in (*pauses, None):
            try:
                connection = self._host.connection()
                connection.request(method, urlsplit(self.path).path, headers=headers)
                answer = connection.getresponse()
                if method == "HEAD":
                    answer.read()
                    length = answer.headers.get("Content-Length", "")
                    return answer.status, int(length) if length.isdigit() else -1
                # A part that is the whole file may come as one.
                whole = answer.status == OK and answer.length == len(buffer)
                if answer.status == PART or (whole and headers["Range"].startswith("bytes=0-")):
                    self._fill(answer, buffer)
                    return answer.status, len(buffer)
                self._host.drop()
                return answer.status, 0
            except (OSError, http.client.HTTPException) as problem:
                self._host.drop()
                if pause is None:
                    raise self._lost(problem) from problem
                time.sleep(pause)
        raise AssertionError  # the last try returns or raises

    def _fill(self, answer: http.client.HTTPResponse, buffer: memoryview) -> None:
        done = 0
        while done < len(buffer):
            count = answer.readinto(buffer[done:])
            done += count or len(self._short())
        # The connection is used again only where nothing is left of this answer.
        if answer.read(1):
            self._host.drop()

    def _lost(self, problem: Exception) -> FetchError:
        return FetchError(
            f"the host that shares the bundle doesn't answer: {problem or type(problem).__name__}",
            where=self.path,
            hint="see whether that host still shares it; the same command goes on",
        )
