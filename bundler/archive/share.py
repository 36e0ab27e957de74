"""A bundle shared with other hosts by HTTP: read-only, parts of files, many readers."""

from __future__ import annotations

import re
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from bundler import __version__
from bundler.archive import sums
from bundler.common.durable import open_plain
from bundler.errors import PreflightError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from bundler.archive.bundle import Bundle

SECONDS = 60.0
"""How long a reader may say nothing before its connection is ended."""
RANGE = re.compile(r"bytes=(\d+)-(\d*)")
"""The one form that bundler and most tools ask in."""


def shared_files(bundle: Bundle) -> dict[str, Path]:
    """Return what is shared, by name: the files that the sums name, these, and the signature."""
    names = [*bundle.sums, sums.SUMS, sums.SIGNATURE]
    places = ((name, folder / name) for name in names for folder in reversed(bundle.folders))
    return {name: path for name, path in places if path.is_file()}


def open_server(
    files: Mapping[str, Path], address: str, port: int, told: Callable[[str], None]
) -> ThreadingHTTPServer:
    """Open a server of these files and nothing else.

    :param port: 0 lets the system choose.
    :param told: is called with a line for each reader that is new.
    :raises PreflightError: it can't listen there.
    """
    try:
        server = ThreadingHTTPServer((address, port), partial(_Reading, files, set(), told))
    except OSError as problem:
        raise PreflightError(
            f"nothing can be shared at {address}:{port}: {problem.strerror}",
            hint="name another address or port: --bind, --port; ss -ltnp shows what listens",
        ) from problem
    server.daemon_threads = True
    return server


class _Reading(BaseHTTPRequestHandler):
    """Answers one reader."""

    protocol_version = "HTTP/1.1"
    server_version = f"bundler/{__version__}"
    sys_version = ""
    timeout = SECONDS

    def __init__(
        self, files: Mapping[str, Path], known: set[str], told: Callable[[str], None], *words: object
    ) -> None:
        self._files, self._known, self._told = files, known, told
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
        path = self._files.get(self.path.removeprefix("/"))
        if path is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        try:
            with open(open_plain(path), "rb") as file:  # noqa: PTH123
                size = file.seek(0, 2)
                begin, end = self._part(size)
                if begin > end or end > size:
                    self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
                    self.send_header("Content-Range", f"bytes */{size}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                part = (begin, end) != (0, size)
                self.send_response(HTTPStatus.PARTIAL_CONTENT if part else HTTPStatus.OK)
                self.send_header("Accept-Ranges", "bytes")
                self.send_header("Content-Type", "application/octet-stream")
                self.send_header("Content-Length", str(end - begin))
                if part:
                    self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{size}")
                self.end_headers()
                if content and end > begin:
                    self.connection.sendfile(file, begin, end - begin)
        except OSError:
            # The reader went away, or the disk: it asks again, or is told.
            self.close_connection = True

    def _part(self, size: int) -> tuple[int, int]:
        """Return the first byte that is asked for and the one after the last."""
        match = RANGE.fullmatch(self.headers.get("Range", ""))
        if match is None:
            return 0, size
        begin = int(match[1])
        end = min(int(match[2]) + 1, size) if match[2] else size
        return (begin, end) if begin < size else (size + 1, size)
