"""The loopback mirror: the store as a static HTTP server, so that an installer finds its artifacts offline.

An artifact of ``https://HOST/PATH`` is asked for as ``http://127.0.0.1:PORT/HOST/PATH``. Only files of the
store are answered, only to this host, and only as long as the install runs.
"""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol
from urllib.parse import unquote, urlsplit

from bundler import __version__
from bundler.errors import InputError, InstallError
from bundler.install.namespace_child import raise_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from types import TracebackType

    from bundler.artifact import Artifact

LOOPBACK = "127.0.0.1"
"""The only address that the mirror binds to."""
IDLE_TIMEOUT = 120.0
"""Seconds after which a silent connection is closed."""
PIECE = 8 << 20
"""Bytes that are sent between two reports."""


class Addresses(Protocol):
    """What the mirror needs of the store."""

    def relative(self, url: str) -> str:
        """Return an artifact's place in the store: ``mirror/HOST/PATH``, decoded."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request that was answered."""

    method: str
    path: str
    """Decoded: ``/HOST/PATH``."""
    status: int
    content: int
    """Bytes of content in the answer."""


class LoopbackMirror:
    """A server of one folder, as a context: it answers inside the ``with`` and not after it."""

    def __init__(self, folder: Path, sent: Callable[[int], None] | None = None) -> None:
        """Prepare to serve.

        :param folder: what is served: a subfolder for each host.
        :param sent: called from any thread with the number of bytes that just went out.
        """
        self.folder = folder
        self._log: list[Request] = []
        self._sent = sent or (lambda amount: None)
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> LoopbackMirror:
        """Bind a free port and start to answer; raise the interface where it is down.

        :raises InstallError: no port of the loopback interface can be bound, or it is down and stays so.
        """
        try:
            # A new network namespace has it down: binding works there, connecting doesn't.
            raise_loopback()
            self._server = _Server(self.folder, self._log, self._sent)
        except OSError as problem:
            raise InstallError(
                f"the loopback mirror can't listen on {LOOPBACK}: {problem.strerror}",
                hint="raise the loopback interface, as root: ip link set lo up",
            ) from problem
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop to listen and drop the connections that are open."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server.drop_connections()
            self._thread.join()

    @property
    def url(self) -> str:
        """Where it answers, without a slash at the end."""
        if self._server is None:
            raise RuntimeError("the mirror isn't running")
        return f"http://{LOOPBACK}:{self._server.server_port}"

    @property
    def requests(self) -> list[Request]:
        """The requests so far, in the order in which they were answered."""
        return list(self._log)

    @property
    def missing(self) -> list[str]:
        """What was asked for and isn't in the store, as ``HOST/PATH``, each once."""
        absent = (one.path.lstrip("/") for one in self.requests if one.status == HTTPStatus.NOT_FOUND)
        return list(dict.fromkeys(absent))

    def prefixes(self, artifacts: Iterable[Artifact], store: Addresses) -> dict[str, str]:
        """Return the mirror's address for each origin of the artifacts, both ending in a slash."""
        return {origin: f"{self.url}/{folder}/" for origin, folder in origins(artifacts, store).items()}


def origins(artifacts: Iterable[Artifact], store: Addresses) -> dict[str, str]:
    """Return each origin that artifacts come from (``https://HOST:PORT/``) with its folder in the store.

    Conda packages of a folder have none: :mod:`bundler.install.folder_channel` brings them to the installer.

    :raises InputError: a wheel's address isn't HTTP, so no mirror can stand for it.
    """
    found: dict[str, str] = {}
    for artifact in artifacts:
        parts = urlsplit(artifact.url)
        if artifact.is_in_folder:
            continue
        if parts.scheme not in ("http", "https"):
            raise InputError(
                f"{artifact.label} is locked at a {parts.scheme or 'relative'} address: "
                "it can't be installed on another host",
                where=artifact.url,
                hint="lock the environment against a channel or an index with an http or https address",
            )
        found[f"{parts.scheme}://{parts.netloc}/"] = store.relative(artifact.url).split("/")[1]
    return dict(sorted(found.items()))


class _Server(ThreadingHTTPServer):
    """Threads that end with the server, and connections that can be dropped."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, folder: Path, log: list[Request], sent: Callable[[int], None]) -> None:
        self.folder = folder.resolve()
        self.log = log
        self.sent = sent
        self._connections: set[socket.socket] = set()
        self._guard = threading.Lock()
        super().__init__((LOOPBACK, 0), _Handler)

    def server_bind(self) -> None:
        """Bind without the look-up of this host's name that the base class makes."""
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = LOOPBACK, self.socket.getsockname()[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Keep the connection in mind and answer it in a thread."""
        with self._guard:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection."""
        with self._guard:
            self._connections.discard(request)
        super().shutdown_request(request)

    def drop_connections(self) -> None:
        """Cut what is open: an installer that has ended needs no answer."""
        with self._guard:
            for connection in self._connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that goes away in the middle is the installer's own matter."""


class _Handler(BaseHTTPRequestHandler):
    """Answers GET with files of the store."""

    server: _Server
    protocol_version = "HTTP/1.1"
    server_version = f"bundler/{__version__}"
    sys_version = ""
    timeout = IDLE_TIMEOUT
    _content = 0
    """Bytes of content of the answer that is about to begin."""

    def do_GET(self) -> None:
        """Send a file, whole whatever range is asked for: installers ask for each artifact once."""
        self._content = 0
        if self.headers.get("Host") != f"{LOOPBACK}:{self.server.server_port}":
            # A name that someone made resolve to this host, as pages in a browser do.
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST, "not the address of this mirror")
            return
        path = self._find()
        if path is None:
            self.send_error(HTTPStatus.NOT_FOUND, "not in the store")
            return
        with path.open("rb") as file:
            self._send(file)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: the log is kept."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Keep the request, before its answer goes out: who has the answer finds it in the log."""
        path = unquote(getattr(self, "path", "").partition("?")[0])
        self.server.log.append(Request(self.command or "", path, int(code), self._content))

    def _send(self, file: BinaryIO) -> None:
        self._content = file.seek(0, 2)
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(self._content))
        # An address names one content for ever: what a client caches of it stays valid without the mirror.
        self.send_header("Cache-Control", "public, max-age=31536000, immutable")
        self.end_headers()
        for start in range(0, self._content, PIECE):
            self.server.sent(self.connection.sendfile(file, start, min(PIECE, self._content - start)))

    def _find(self) -> Path | None:
        """Return the asked file, or ``None`` for whatever isn't a file inside the store."""
        target = self.path.partition("?")[0]
        # The store drops empty parts of a path, so they mean nothing here either.
        parts = [part for part in unquote(target, errors="surrogateescape").split("/") if part]
        if not target.startswith("/") or target.endswith("/") or any(map(_is_hostile, parts)):
            return None
        try:
            path = self.server.folder.joinpath(*parts).resolve(strict=True)
        except (OSError, RuntimeError):
            return None
        return path if path.is_relative_to(self.server.folder) and path.is_file() else None


def _is_hostile(part: str) -> bool:
    return part in (".", "..") or "\0" in part
