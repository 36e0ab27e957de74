"""A bundle that another host shares by HTTP: read frame by frame, each checked as from a disk."""

from __future__ import annotations

import http.client
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from bundler.archive import sums
from bundler.archive.bundle import Bundle
from bundler.errors import FetchError, InputError, UntrustedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bundler.archive.trust import Trust

SECONDS = 60.0
"""How long an answer may take before the connection counts as lost."""
PAUSES = (0.5, 1.0, 2.0, 4.0)
"""Seconds before the second try and the next ones."""
SCHEMES = ("http:/", "https:/")
BLOCK = 2**20


class HttpVolume:
    """A volume on another host. Each thread has a connection of its own.

    A server that knows no Range is read in order, by one thread at a time: what lies before is read and
    thrown away.
    """

    def __init__(self, address: str, name: str) -> None:
        """Know the address; nothing is asked yet."""
        self.path = f"{address}{quote(name)}"
        self._local = threading.local()
        self._lock = threading.Lock()
        self._stream: http.client.HTTPResponse | None = None
        self._at = 0
        self._ranges = True

    def size(self) -> int:
        """Return the file's size.

        :raises FetchError: the host doesn't say.
        """
        with self._answer("HEAD", {}) as answer:
            length = answer.headers.get("Content-Length", "")
        if answer.status != http.HTTPStatus.OK or not length.isdigit():
            raise FetchError(f"the host answers {answer.status} {answer.reason}", where=self.path)
        return int(length)

    def read_at(self, offset: int, buffer: memoryview) -> None:
        """Fill the buffer from an offset.

        :raises FetchError: the host doesn't give it, also after some tries.
        """
        if self._ranges:
            wanted = f"bytes={offset}-{offset + len(buffer) - 1}"
            with self._answer("GET", {"Range": wanted}, buffer) as answer:
                if answer.status == http.HTTPStatus.PARTIAL_CONTENT:
                    return
                self._ranges = answer.status != http.HTTPStatus.OK
            if self._ranges:
                raise FetchError(f"the host answers {answer.status} {answer.reason}", where=self.path)
        with self._lock:
            self._read_on(offset, buffer)

    def forget(self, offset: int, size: int) -> None:
        """Do nothing: no cache here holds it."""

    def close(self) -> None:
        """Close this thread's connections."""
        self._drop()
        if self._stream is not None:
            self._stream.close()
        self._stream = None

    def _read_on(self, offset: int, buffer: memoryview) -> None:
        """Read from the one answer that is open; what lies before begins it anew."""
        try:
            if self._stream is None or self._at > offset:
                self.close()
                connection = self._connection()
                connection.request("GET", urlsplit(self.path).path)
                self._stream, self._at = connection.getresponse(), 0
                # It stays this stream's alone.
                self._local.connection = None
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

    @contextmanager
    def _answer(
        self, method: str, headers: dict[str, str], buffer: memoryview | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """Ask, and ask again where the connection is lost; a part that was asked for is read."""
        for pause in (*PAUSES, None):
            try:
                connection = self._connection()
                connection.request(method, urlsplit(self.path).path, headers=headers)
                answer = connection.getresponse()
                if buffer is not None and answer.status == http.HTTPStatus.PARTIAL_CONTENT:
                    self._fill(answer, buffer)
                elif method == "HEAD":
                    answer.read()
                else:
                    self._drop()
                break
            except (OSError, http.client.HTTPException) as problem:
                self._drop()
                if pause is None:
                    raise self._lost(problem) from problem
                time.sleep(pause)
        yield answer

    def _fill(self, answer: http.client.HTTPResponse, buffer: memoryview) -> None:
        done = 0
        while done < len(buffer):
            count = answer.readinto(buffer[done:])
            done += count or len(self._short())
        # The connection is used again only where nothing is left of this answer.
        if answer.read(1):
            self._drop()

    def _connection(self) -> http.client.HTTPConnection:
        known: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if known is None:
            parts = urlsplit(self.path)
            kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
            known = self._local.connection = kind(parts.netloc, timeout=SECONDS)
        return known

    def _drop(self) -> None:
        known = getattr(self._local, "connection", None)
        self._local.connection = None
        if known is not None:
            known.close()

    def _lost(self, problem: Exception) -> FetchError:
        return FetchError(
            f"the host that shares the bundle doesn't answer: {problem or type(problem).__name__}",
            where=self.path,
            hint="see whether bundler share still runs there; the same command goes on",
        )


def address_of(place: Path) -> str | None:
    """Return the address that a word of the command line is, or ``None`` where it is a path.

    A path has lost one of two slashes by now.
    """
    text = str(place)
    scheme = next((one for one in SCHEMES if text.startswith(one)), None)
    return f"{scheme}/{text.removeprefix(scheme).strip('/')}/" if scheme else None


@contextmanager
def open_shared(address: str, trust: Trust) -> Iterator[Bundle]:
    """Open a bundle that another host shares.

    :param trust: what is asked of it; over a network that has to be something.
    :raises UntrustedError: no signature and no digest is asked for, or the bundle isn't what is.
    :raises FetchError: the host doesn't answer, or has no bundle there.
    """
    if not urlsplit(address).hostname:
        raise UsageError(f"{address} names no host", hint="http://HOST:PORT/, as bundler share prints it")
    with TemporaryDirectory(prefix="bundler-shared-") as scratch:
        folder = Path(scratch)
        for name, largest in (
            (sums.SUMS, sums.LARGEST_SUMS),
            (sums.MANIFEST, sums.LARGEST_MANIFEST),
            (sums.SIGNATURE, sums.LARGEST_SUMS),
        ):
            _bring(address, name, folder / name, largest, needed=name != sums.SIGNATURE)
        with suppress(FileNotFoundError), Bundle.open([folder], trust) as bundle:
            if bundle.provenance.signature is None and not bundle.provenance.digest_given:
                raise UntrustedError(
                    "over a network a bundle is taken with a signature or a digest only",
                    where=address,
                    hint="--sha256 DIGEST, as pack printed it, or --allowed-signers FILE",
                )
            bundle.volumes |= {
                volume.name: HttpVolume(address, volume.name) for volume in bundle.manifest.volumes
            }
            yield bundle


def _bring(address: str, name: str, path: Path, largest: int, *, needed: bool) -> None:
    """Fetch one of the small files."""
    volume = HttpVolume(address, name)
    try:
        size = volume.size()
    except FetchError as problem:
        if not needed:
            return
        raise FetchError(
            f"no bundle is shared there: {problem.what}", where=address, hint=problem.hint
        ) from problem
    if size > largest:
        raise InputError(f"{name} is too long: {size} bytes", where=volume.path)
    data = bytearray(size)
    if size:
        volume.read_at(0, memoryview(data))
    volume.close()
    path.write_bytes(data)
