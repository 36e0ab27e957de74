"""Sizes that the lock doesn't state: asked of the hosts by HEAD, remembered in the store."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import httpx2

from bundler.collect.faults import BeginAnew
from bundler.collect.network import body_of
from bundler.common.threads import each
from bundler.errors import BundlerError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable

    from bundler.artifact import Artifact
    from bundler.collect.network import Network
    from bundler.store import Store

THREADS = 16
PATIENCE = 20.0
"""Seconds after which no further host is asked: a plan without some sizes is better than none."""
TIMEOUT = httpx2.Timeout(10.0, connect=5.0, pool=None)
HOPELESS = 4
"""Requests of one host that fail before the rest of that host's are given up."""


def known_sizes(artifacts: Iterable[Artifact], store: Store) -> dict[str, int]:
    """Return sizes by address that need no network: of the lock, of the files here, of earlier answers."""
    remembered = store.table("sizes")
    found = {}
    for artifact in artifacts:
        size = artifact.size
        if size is None and store.has(artifact):
            size = store.path(artifact.url).stat().st_size
        if size is None and isinstance(earlier := remembered.get(artifact.url), int):
            size = earlier
        if size is not None:
            found[artifact.url] = size
    return found


def ask_sizes(
    artifacts: Iterable[Artifact], store: Store, network: Network, *, patience: float = PATIENCE
) -> dict[str, int]:
    """Return sizes by address, asking for those not known; what can't be had is left out.

    :param patience: seconds in all.
    """
    wanted = list({artifact.url: artifact for artifact in artifacts}.values())
    found = known_sizes(wanted, store)
    ask = _asker(network, time.monotonic() + patience)
    unknown = [artifact for artifact in wanted if artifact.url not in found]
    answers = dict(each(ask, unknown, threads=THREADS))
    fresh = {url: size for url, size in answers.items() if size is not None}
    store.table("sizes").update(fresh)
    return found | fresh


def _asker(
    network: Network, deadline: float
) -> Callable[[Artifact, threading.Event], tuple[str, int | None]]:
    """Return what asks for one artifact's size, in any thread, and counts the hosts' failures."""
    failed: list[str] = []

    def ask(artifact: Artifact, stop: threading.Event) -> tuple[str, int | None]:
        try:
            addresses = network.configuration.candidates(artifact.url)
        except BundlerError:
            return artifact.url, None
        for url in addresses:
            host = urlsplit(url).netloc
            if time.monotonic() > deadline or stop.is_set() or failed.count(host) >= HOPELESS:
                continue
            try:
                size = _size(network, url)
            except (httpx2.HTTPError, httpx2.InvalidURL, OSError):
                failed.append(host)
                continue
            if size is not None:
                return artifact.url, size
        return artifact.url, None

    return ask


def _size(network: Network, url: str) -> int | None:
    if urlsplit(url).scheme == "file":
        return Path(unquote(urlsplit(url).path)).stat().st_size
    asked = network.credentials.address(url)
    answer = network.client.head(asked, timeout=TIMEOUT)
    if answer.status_code == 200 and (size := body_of(answer, 0).total) is not None:
        return size
    if answer.status_code not in (200, 403, 404, 405, 501):
        return None
    # One byte: some hosts refuse HEAD, or answer it without a length.
    with network.client.stream("GET", asked, headers={"Range": "bytes=0-0"}, timeout=TIMEOUT) as one_byte:
        try:
            return body_of(one_byte, 0).total if one_byte.status_code in (200, 206) else None
        except BeginAnew:
            return None
