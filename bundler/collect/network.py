"""Files by HTTP: one client, and all its connections, which an interrupt closes."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import httpx2

from bundler.collect.faults import BeginAnew, Stopped, of_exception, of_status
from bundler.collect.transfer import Body, file_body

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from bundler.collect.client import Credentials

CHUNK = 256 << 10
"""Bytes of a file on this machine that are read at once."""


class Network:
    """One client for many threads, and a way to end what all of them wait for."""

    def __init__(
        self,
        client: httpx2.Client,
        credentials: Credentials | None = None,
        *,
        stop: threading.Event | None = None,
    ) -> None:
        """Keep the client.

        :param client: of :func:`bundler.collect.client.make_client`.
        :param credentials: for tokens that are a part of the address.
        :param stop: ends every request soon after it is set; see :meth:`interrupt`.
        """
        self._client = client
        self._credentials = credentials
        self.stop = stop or threading.Event()
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
        asked = self._credentials.address(url) if self._credentials else url
        try:
            with self._client.stream(
                "GET", asked, headers=dict(headers), extensions={"trace": self._traced}
            ) as response:
                yield response
        except (httpx2.HTTPError, httpx2.InvalidURL) as problem:
            raise of_exception(problem, url, stopped=self.stop.is_set()) from problem

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


@dataclass(frozen=True)
class HttpOrigin:
    """A file at an address: ``http://``, ``https://`` or ``file://``."""

    network: Network
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent with each request, beside the client's own."""
    refused: Callable[[httpx2.Response], Exception] = of_status
    """What an answer without the file means."""
    place: str = ""
    """For messages, where not the address."""
    title: str = ""
    mend: str = "the host or a proxy alters it: try another mirror, or lock again"

    @property
    def where(self) -> str:
        """The place, for messages."""
        return self.place or self.url

    @contextlib.contextmanager
    def open(self, start: int, stop: int | None = None, validator: str = "") -> Iterator[Body]:
        """Open the file; see :class:`bundler.collect.transfer.Origin`."""
        if urlsplit(self.url).scheme == "file":
            with file_body(unquote(urlsplit(self.url).path), start, CHUNK) as body:
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
            yield _body_of(response, start)


def _body_of(response: httpx2.Response, start: int) -> Body:
    """Return an answer's body with its place in the file."""
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
