"""Files by HTTP: one client, and all its connections, which an interrupt closes."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import httpx2

from bundler.collect.client import Credentials, make_client
from bundler.collect.configuration import Configuration, load_configuration
from bundler.collect.faults import BeginAnew, Permanent, Stopped, of_exception, of_status
from bundler.collect.transfer import Body

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

CHUNK = 256 << 10
"""Bytes of a file on this machine that are read at once."""
JOBS = 8
"""Files downloaded at once, unless the user says otherwise."""


class Network:
    """How this host reaches others: one client for many threads, and a way to end all that wait for it."""

    def __init__(
        self, credentials: Credentials, configuration: Configuration | None = None, *, jobs: int = JOBS
    ) -> None:
        """Make the client; nothing is asked yet.

        :param configuration: pixi's, for its mirrors.
        :raises InputError: the proxy or certificate variables can't be used.
        """
        self.client = make_client(credentials, connections=jobs)
        self.close = self.client.close
        self.credentials = credentials
        self.configuration = configuration or Configuration()
        self.stop = threading.Event()
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._lock = threading.Lock()

    def interrupt(self) -> None:
        """End every request now, also those that wait for a host."""
        self.stop.set()
        with self._lock:
            for connection in self._sockets:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def get(self, url: str, headers: Mapping[str, str]) -> Iterator[httpx2.Response]:
        """Open an address; the connection is one that :meth:`interrupt` closes.

        :raises Transient: a failure that may pass.
        :raises Permanent: one that doesn't.
        :raises Stopped: it was interrupted.
        """
        if self.stop.is_set():
            raise Stopped
        asked = self.credentials.address(url)
        try:
            with self.client.stream(
                "GET", asked, headers=dict(headers), extensions={"trace": self._traced}
            ) as response:
                yield response
        except (httpx2.HTTPError, httpx2.InvalidURL) as problem:
            raise Stopped if self.stop.is_set() else of_exception(problem, url) from problem

    def _traced(self, event: str, info: dict[str, Any]) -> None:
        """Note each connection as it is made; a silent host's is needed before it answers."""
        if event in ("connection.connect_tcp.complete", "proxy.connect_tcp.complete") or (
            event.endswith("start_tls.complete")
        ):
            connection = info["return_value"].get_extra_info("socket")
            if connection is not None:
                with self._lock:
                    self._sockets.add(connection)
            if self.stop.is_set():
                raise Stopped


def open_network(workspace: Path | None, *, jobs: int = JOBS) -> Network:
    """Read pixi's configuration and the credentials, and make the network of a command.

    :param workspace: whose ``.pixi/config.toml`` counts.
    :raises InputError: a configuration, credentials or certificates file can't be used.
    """
    configuration = load_configuration(workspace)
    return Network(Credentials.load(configuration), configuration, jobs=jobs)


@dataclass(frozen=True)
class Origin:
    """One place that a file can be had from: ``http://``, ``https://`` or ``file://``."""

    network: Network
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent with each request, beside the client's own."""
    refused: Callable[[httpx2.Response], Exception] = of_status
    """What an answer without the file means."""
    place: str = ""
    """For messages, where not the address."""
    title: str = ""
    """The hub's name for people; empty for a plain address."""
    mend: str = "the host or a proxy alters it: try another mirror, or lock again"
    """What to do where its bytes are wrong again and again."""

    @property
    def where(self) -> str:
        """The place, for messages."""
        return self.place or self.url

    @contextlib.contextmanager
    def open(self, start: int, stop: int | None = None, validator: str = "") -> Iterator[Body]:
        """Open the file from ``start`` on, to ``stop`` where given.

        :param validator: of an earlier :class:`Body`: another file is then given from its beginning.
        :raises Transient: worth another attempt.
        :raises Permanent: not worth one.
        :raises BundlerError: not worth one, at this origin or another.
        """
        if urlsplit(self.url).scheme == "file":
            with _local_body(unquote(urlsplit(self.url).path), start) as body:
                yield body
            return
        headers = {**self.headers}
        if start or stop is not None:
            headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
            if validator:
                headers["If-Range"] = validator
        with self.network.get(self.url, headers) as response:
            if response.status_code == 416:
                raise BeginAnew("the host has fewer bytes than came before")
            if response.status_code not in (200, 206):
                response.read()
                raise self.refused(response)
            yield body_of(response, start)


@contextlib.contextmanager
def _local_body(path: str, start: int) -> Iterator[Body]:
    try:
        file = open(path, "rb", buffering=0)  # noqa: PTH123, SIM115
    except OSError as problem:
        raise Permanent(
            f"{problem.strerror}: {path}", "a file:// address must be readable from this machine"
        ) from problem
    with file:
        file.seek(start)
        yield Body(start, os.fstat(file.fileno()).st_size, iter(lambda: file.read(CHUNK), b""))


def body_of(response: httpx2.Response, start: int) -> Body:
    """Return the body of an answer 200 or 206 with its place in the file.

    :raises BeginAnew: it is another range than the one that was asked for.
    """
    length = response.headers.get("Content-Length", "")
    total = int(length) if length.isdigit() else None
    if response.status_code == 206:
        match = re.match(r"bytes (\d+)-\d*(?:/(\d+))?", response.headers.get("Content-Range", "").strip())
        if match is None or int(match[1]) != start:
            raise BeginAnew("the host sent another range than was asked for")
        total = int(match[2]) if match[2] else None
    else:
        start = 0
    # A weak ETag promises no equal bytes, so If-Range may not use it.
    etag = response.headers.get("ETag", "")
    strong = etag if not etag.startswith("W/") else ""
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    return Body(
        start,
        total,
        response.iter_raw(),
        strong or response.headers.get("Last-Modified", ""),
        "" if encoding == "identity" else encoding,
    )
