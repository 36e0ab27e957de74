"""One file from one of several addresses: resumed, retried, checked while it is written, renamed when whole.

Beside the file, a download under way has ``NAME.partial`` with the bytes that came so far and
``NAME.partial.origin`` with the address and the validator (ETag or modification time) they came with.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import re
import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import unquote, urlsplit

import httpx2

from bundler.collect.faults import (
    Permanent,
    Stopped,
    Transient,
    UnreachableError,
    of_exception,
    of_status,
)
from bundler.common.durable import sync_folder
from bundler.errors import BundlerError, DamagedError, FetchError, PreflightError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from bundler.collect.client import Credentials

CHUNK = 1 << 20
FORGIVEN = 1 << 20
"""Bytes that an attempt must bring to count as progress: after it, the retries are counted anew."""


@dataclass(frozen=True)
class Wanted:
    """A file to download."""

    path: Path
    """Where it goes; its folder is made."""
    urls: tuple[str, ...]
    """Addresses of the same content, tried in this order."""
    sha256: str | None = None
    """Lower-case hex; ``None``: whatever comes is taken."""
    size: int | None = None
    """Bytes, where known."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent with each request, beside the client's own."""

    @property
    def partial(self) -> Path:
        """Where it grows."""
        return self.path.with_name(self.path.name + ".partial")

    @property
    def origin(self) -> Path:
        """Where the partial file's address and validator are kept."""
        return self.path.with_name(self.path.name + ".partial.origin")

    def partial_size(self) -> int:
        """Bytes that came so far."""
        try:
            return self.partial.stat().st_size
        except FileNotFoundError:
            return 0


@dataclass(frozen=True)
class Patience:
    """How often and how long is waited for a host that fails."""

    attempts: int = 6
    """For each address, without progress."""
    first_wait: float = 0.5
    """Seconds; doubled each time, with jitter."""
    longest_wait: float = 30.0
    longest_retry_after: float = 300.0
    """The most that a host's ``Retry-After`` is obeyed."""


PATIENT = Patience()


@dataclass
class _Address:
    url: str
    failures: int = 0
    end: Permanent | None = None
    """Why it isn't tried any more."""


class _Progress:
    """How much of one file counts as done."""

    def __init__(self, advance: Callable[[int], None], done: int) -> None:
        self._advance = advance
        self.done = done

    def set(self, done: int) -> None:
        if done != self.done:
            self._advance(done - self.done)
            self.done = done


class Downloader:
    """Downloads files with one client; :meth:`download` may run in several threads at once."""

    def __init__(
        self,
        client: httpx2.Client,
        credentials: Credentials | None = None,
        *,
        patience: Patience = PATIENT,
        stop: threading.Event | None = None,
    ) -> None:
        """Keep the client.

        :param client: of :func:`bundler.collect.client.make_client`.
        :param credentials: for tokens that are a part of the address.
        :param patience: with hosts that fail.
        :param stop: ends every download soon after it is set; see :meth:`interrupt`.
        """
        self._client = client
        self._credentials = credentials
        self._patience = patience
        self.stop = stop or threading.Event()
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()

    def interrupt(self) -> None:
        """End every download now, also those that wait for a host; what came so far stays on the disk."""
        self.stop.set()
        with self._lock:
            for connection in self._sockets:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def download(
        self, wanted: Wanted, advance: Callable[[int], None] | None = None, *, counted: int = 0
    ) -> str:
        """Bring a file to its path, whole, and return its sha256.

        :param wanted: what, from where, to where.
        :param advance: told the bytes as they come; a negative number where bytes turned out to be useless.
        :param counted: bytes of the partial file that ``advance``'s receiver counted before.
        :raises FetchError: no address gave it, after retries.
        :raises DamagedError: twice the content was not what ``sha256`` or ``size`` promise.
        :raises PreflightError: the disk is full.
        """
        progress = _Progress(advance or (lambda _: None), counted)
        wanted.path.parent.mkdir(parents=True, exist_ok=True)
        addresses = [_Address(url) for url in wanted.urls]
        damage: DamagedError | None = None
        while True:
            address = self._next(addresses, wanted)
            before = wanted.partial_size()
            try:
                return self._attempt(wanted, address.url, progress)
            except DamagedError as problem:
                discard(wanted)
                progress.set(0)
                if damage is not None:
                    raise
                damage, address.failures = problem, address.failures + 1
            except Permanent as problem:
                address.end = problem
            except Transient as problem:
                fresh = wanted.partial_size() - before >= FORGIVEN
                self._count(address, problem, addresses, fresh=fresh)
            except OSError as problem:
                _raise_disk(problem, wanted)

    def _next(self, addresses: list[_Address], wanted: Wanted) -> _Address:
        """Return the address with the fewest failures, or raise what ended the last of them."""
        alive = [address for address in addresses if address.end is None]
        if not alive:
            last = addresses[-1].end
            assert last is not None
            findings = [f"{a.url}: {a.end.what}" for a in addresses if a.end] if len(addresses) > 1 else []
            failed = all(address.end and address.end.exhausted for address in addresses)
            kind = UnreachableError if failed else FetchError
            raise kind(
                f"can't download {wanted.path.name}: {last.what}",
                where=addresses[-1].url,
                hint=last.hint,
                findings=findings,
            )
        return min(alive, key=lambda address: address.failures)

    def _count(
        self, address: _Address, problem: Transient, addresses: list[_Address], *, fresh: bool
    ) -> None:
        """Count a passing failure, and wait before the next attempt unless another address is to be tried."""
        address.failures = 1 if fresh else address.failures + 1
        if address.failures >= self._patience.attempts:
            what = f"{problem.what}, {address.failures} times"
            address.end = Permanent(what, problem.hint, exhausted=True)
            return
        if any(other.end is None and other.failures < address.failures for other in addresses):
            return
        wait = self._patience.first_wait * 2 ** (address.failures - 1) * random.uniform(0.75, 1.25)
        wait = min(wait, self._patience.longest_wait)
        if problem.wait is not None:
            wait = max(wait, min(problem.wait, self._patience.longest_retry_after))
        if self.stop.wait(wait):
            raise Stopped

    def _attempt(self, wanted: Wanted, url: str, progress: _Progress) -> str:
        if self.stop.is_set():
            raise Stopped
        if urlsplit(url).scheme == "file":
            return self._copy(wanted, url, progress)
        offset, digest = self._resumable(wanted, url)
        progress.set(offset)
        if wanted.size is None or offset < wanted.size:
            with self._get(wanted, url, offset) as response:
                if offset and response.status_code == 200:
                    offset, digest = 0, hashlib.sha256()
                    progress.set(0)
                _check_length(wanted, url, offset, response)
                _keep_origin(wanted, url, response)
                mode = "ab" if offset else "wb"
                with wanted.partial.open(mode, buffering=CHUNK) as file:
                    for chunk in self._pieces(response):
                        file.write(chunk)
                        digest.update(chunk)
                        progress.set(progress.done + len(chunk))
        return self._finish(wanted, url, digest.hexdigest())

    def _copy(self, wanted: Wanted, url: str, progress: _Progress) -> str:
        source = unquote(urlsplit(url).path)
        digest = hashlib.sha256()
        progress.set(0)
        try:
            file = open(source, "rb", buffering=0)  # noqa: PTH123, SIM115
        except OSError as problem:
            raise Permanent(
                f"{problem.strerror}: {source}", "a file:// address must be readable from this machine"
            ) from problem
        with file, wanted.partial.open("wb") as out:
            while chunk := file.read(CHUNK):
                if self.stop.is_set():
                    raise Stopped
                out.write(chunk)
                digest.update(chunk)
                progress.set(progress.done + len(chunk))
        return self._finish(wanted, url, digest.hexdigest())

    def _resumable(self, wanted: Wanted, url: str) -> tuple[int, hashlib._Hash]:
        """Return how much of the partial file can be kept, with its digest so far."""
        digest = hashlib.sha256()
        known = wanted.sha256 is not None or _validator(wanted, url) is not None
        size = wanted.partial_size()
        if not known or (wanted.size is not None and size > wanted.size):
            discard(wanted)
            return 0, digest
        if size:
            with wanted.partial.open("rb", buffering=0) as file:
                while chunk := file.read(CHUNK):
                    if self.stop.is_set():
                        raise Stopped
                    digest.update(chunk)
        return size, digest

    @contextlib.contextmanager
    def _get(self, wanted: Wanted, url: str, offset: int) -> Iterator[httpx2.Response]:
        headers = dict(wanted.headers)
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if validator := _validator(wanted, url):
                headers["If-Range"] = validator
        asked = self._credentials.address(url) if self._credentials else url
        try:
            with self._client.stream("GET", asked, headers=headers) as response:
                if response.status_code == 416:
                    discard(wanted)
                    raise Transient("the host has fewer bytes than came before")
                if response.status_code not in (200, 206):
                    raise of_status(response)
                if response.status_code == 206 and not _continues(response, offset):
                    discard(wanted)
                    raise Transient("the host sent another range than was asked for")
                with self._interruptible(response):
                    yield response
        except (httpx2.HTTPError, httpx2.InvalidURL) as problem:
            raise of_exception(problem, url, stopped=self.stop.is_set()) from problem

    def _pieces(self, response: httpx2.Response) -> Iterator[bytes]:
        for chunk in response.iter_raw():
            if self.stop.is_set():
                raise Stopped
            yield chunk

    @contextlib.contextmanager
    def _interruptible(self, response: httpx2.Response) -> Iterator[None]:
        stream = response.extensions.get("network_stream")
        connection = stream.get_extra_info("socket") if stream is not None else None
        if connection is None:
            yield
            return
        with self._lock:
            self._sockets.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._sockets.discard(connection)

    def _finish(self, wanted: Wanted, url: str, digest: str) -> str:
        """Check the partial file and give it its name, durably."""
        size = wanted.partial_size()
        if wanted.size is not None and size < wanted.size:
            raise Transient(f"the host ended after {size} of {wanted.size} bytes")
        if (wanted.size is not None and size > wanted.size) or wanted.sha256 not in (None, digest):
            raise _damaged(wanted, url, size, digest)
        with wanted.partial.open("rb+") as file:
            os.fsync(file.fileno())
        wanted.partial.replace(wanted.path)
        wanted.origin.unlink(missing_ok=True)
        sync_folder(wanted.path.parent)
        return digest


def discard(wanted: Wanted) -> None:
    """Forget what came so far."""
    wanted.partial.unlink(missing_ok=True)
    wanted.origin.unlink(missing_ok=True)


def _validator(wanted: Wanted, url: str) -> str | None:
    """Return what tells whether the address still has the content that the partial file began with."""
    try:
        address, validator = wanted.origin.read_text(encoding="utf-8").split("\n", 1)
    except (OSError, ValueError):
        return None
    return validator if address == url and validator else None


def _keep_origin(wanted: Wanted, url: str, response: httpx2.Response) -> None:
    etag = response.headers.get("ETag", "")
    # A weak ETag promises no equal bytes, so If-Range may not use it.
    validator = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")
    wanted.origin.write_text(f"{url}\n{validator}", encoding="utf-8")


def _continues(response: httpx2.Response, offset: int) -> bool:
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return match is not None and int(match[1]) == offset


def _check_length(wanted: Wanted, url: str, offset: int, response: httpx2.Response) -> None:
    """Refuse an answer of another length before it is read: a portal's page instead of the file, say."""
    length = response.headers.get("Content-Length", "")
    if wanted.size is not None and length.isdigit() and offset + int(length) != wanted.size:
        raise DamagedError(
            f"{wanted.path.name} has {offset + int(length)} bytes at its address, {wanted.size} are expected",
            where=url,
            hint="the host serves another file: try another mirror, or lock again",
        )


def _damaged(wanted: Wanted, url: str, size: int, digest: str) -> DamagedError:
    return DamagedError(
        f"{wanted.path.name} is not the file that is expected",
        where=url,
        findings=(
            f"expected sha256 {wanted.sha256 or 'unknown'}, {wanted.size or 'unknown'} bytes",
            f"got      sha256 {digest}, {size} bytes",
        ),
        hint="the host or a proxy alters it: try another mirror, or lock again",
    )


def _raise_disk(problem: OSError, wanted: Wanted) -> NoReturn:
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        raise PreflightError(
            f"the disk is full while {wanted.path.name} is written",
            where=wanted.path.parent,
            hint="free some space; the same command goes on where it stopped",
        ) from problem
    raise BundlerError(
        f"can't write {wanted.path.name}: {problem.strerror or problem}", where=wanted.path.parent
    ) from problem
