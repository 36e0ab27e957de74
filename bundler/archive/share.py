"""A bundle shared with other hosts by HTTP: read-only, parts of files, many readers."""

from __future__ import annotations

import re
import socket
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Protocol

from bundler import __version__
from bundler.archive import sums
from bundler.common.durable import open_plain
from bundler.errors import PreflightError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bundler.archive.bundle import Bundle

SECONDS = 60.0
"""How long a reader may say nothing before its connection is ended."""
RANGE = re.compile(r"bytes=(\d+)-(\d*)")
"""The one form that bundler and most tools ask in."""
WAIT = re.compile(r"wait=(\d{1,4})")
LONGEST_WAIT = 60.0
"""Seconds for which an answer is kept back at most."""


class Shelf(Protocol):
    """What is shared."""

    def find(self, name: str) -> tuple[Path, int] | None:
        """Return where a file is, and the size that it has or will have; ``None``: it isn't shared."""

    def state(self, name: str, begin: int, end: int, seconds: float) -> int:
        """Say whether a part of a file is here, and wait some seconds for it where it will come.

        :return: 200, or 503: it will come, and hasn't yet; 404: it won't.
        """


class SharedFiles:
    """A bundle's own files on a disk: those that the sums name, these, and the signature."""

    def __init__(self, bundle: Bundle) -> None:
        """Find them."""
        names = [*bundle.sums, sums.SUMS, sums.SIGNATURE]
        places = ((name, folder / name) for name in names for folder in reversed(bundle.folders))
        self._files = {name: path for name, path in places if path.is_file()}

    def find(self, name: str) -> tuple[Path, int] | None:
        """Return where a file is, and its size."""
        path = self._files.get(name)
        return (path, path.stat().st_size) if path else None

    def state(self, name: str, begin: int, end: int, seconds: float) -> int:
        """Say that all of it is here."""
        return HTTPStatus.OK


def open_server(shelf: Shelf, address: str, port: int, told: Callable[[str], None]) -> ThreadingHTTPServer:
    """Open a server of what lies on a shelf, and of nothing else.

    :param port: 0 lets the system choose.
    :param told: is called with a line for each reader that is new.
    :raises PreflightError: it can't listen there.
    """
    try:
        server = _ShareServer((address, port), partial(_Reading, shelf, set(), told))
    except OSError as problem:
        raise PreflightError(
            f"nothing can be shared at {address}:{port}: {problem.strerror}",
            hint="name another address or port: --bind, --port; ss -ltnp shows what listens",
        ) from problem
    return server


class _ShareServer(ThreadingHTTPServer):
    """Serves until it is shut down; who reads then is cut off."""

    daemon_threads = True
    request_queue_size = 1024
    """Connections that wait to be taken: a rack's hosts come at once, each with as many as it has threads."""

    def __init__(self, place: tuple[str, int], reading: Callable[..., BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
        super().__init__(place, reading)


class _Reading(BaseHTTPRequestHandler):
    """Answers one reader."""

    protocol_version = "HTTP/1.1"
    server_version = f"bundler/{__version__}"
    sys_version = ""
    timeout = SECONDS

    def __init__(self, shelf: Shelf, known: set[str], told: Callable[[str], None], *words: object) -> None:
        self._shelf, self._known, self._told = shelf, known, told
        super().__init__(*words)  # type: ignore[arg-type]

    def do_HEAD(self) -> None:
        """Answer without the content."""
        self._answer(content=False)

    def do_GET(self) -> None:
        """Answer with a file or a part of it."""
        self._answer(content=True)

    def log_message(self, format: str, *words: object) -> None:
        """Say of each reader only that it came."""
        reader = str(self.client_address[0])
        if reader not in self._known:
            self._known.add(reader)
            self._told(f"{reader} reads")

    def _answer(self, *, content: bool) -> None:
        name = self.path.removeprefix("/")
        try:
            found = self._shelf.find(name)
            if found is None:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            size = found[1]
            begin, end = self._part(size)
            if begin > end or end > size:
                self._refuse(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, ("Content-Range", f"bytes */{size}"))
                return
            state = self._shelf.state(name, begin, end, self._patience()) if content else HTTPStatus.OK
            if state != HTTPStatus.OK:
                self._refuse(state, ("Retry-After", "10"))
                return
            self._give(name, begin, end, size, content=content)
        except OSError:
            # The reader went away, or the disk: it asks again, or is told.
            self.close_connection = True

    def _give(self, name: str, begin: int, end: int, size: int, *, content: bool) -> None:
        """Answer with a part that is here."""
        part = (begin, end) != (0, size)
        self.send_response(HTTPStatus.PARTIAL_CONTENT if part else HTTPStatus.OK)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(end - begin))
        if part:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{size}")
        if not content or end == begin:
            self.end_headers()
            return
        with open(self._open(name), "rb") as file:  # noqa: PTH123
            self.end_headers()
            self.connection.sendfile(file, begin, end - begin)

    def _open(self, name: str) -> int:
        """Return a descriptor of a file; one that gets its own name meanwhile is looked for once more."""
        for _ in range(2):
            found = self._shelf.find(name)
            assert found is not None  # what was shared once stays shared
            try:
                return open_plain(found[0])
            except FileNotFoundError as problem:
                gone = problem
        raise gone

    def _refuse(self, status: int, header: tuple[str, str]) -> None:
        self.send_response(status)
        self.send_header(*header)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _patience(self) -> float:
        """Return for how many seconds the reader wants to wait for what isn't here yet (RFC 7240)."""
        match = WAIT.fullmatch(self.headers.get("Prefer", ""))
        return min(float(match[1]), LONGEST_WAIT) if match else 0.0

    def _part(self, size: int) -> tuple[int, int]:
        """Return the first byte that is asked for and the one after the last."""
        match = RANGE.fullmatch(self.headers.get("Range", ""))
        if match is None:
            return 0, size
        begin = int(match[1])
        end = min(int(match[2]) + 1, size) if match[2] else size
        return (begin, end) if begin < size else (size + 1, size)
