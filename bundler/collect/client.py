"""The HTTP client: proxies, certificates and credentials as the usual variables and files name them."""

from __future__ import annotations

import base64
import netrc
import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx2
import msgspec

from bundler import __version__
from bundler.collect.configuration import read_optional
from bundler.common.broken import BROKEN_JSON
from bundler.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bundler.collect.configuration import Configuration

CONNECT_SECONDS, READ_SECONDS = 15.0, 60.0
"""How long a host may take to answer at all, and between two pieces of an answer."""
CERTIFICATE_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@dataclass(frozen=True)
class Credentials:
    """Who we are to which host: rattler's credentials file, then netrc."""

    rattler: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Host, or ``*.domain``, to one of rattler's ``Authentication`` objects."""
    netrc: netrc.netrc | None = None

    @classmethod
    def load(cls, configuration: Configuration | None = None) -> Credentials:
        """Read the files: ``RATTLER_AUTH_FILE``, pixi's ``authentication-override-file`` or
        ``~/.rattler/credentials.json``; ``NETRC`` or ``~/.netrc``.

        :raises InputError: a file is broken, or a named one isn't there.
        """
        pixis = configuration.authentication_file if configuration else None
        variable = "RATTLER_AUTH_FILE" if os.environ.get("RATTLER_AUTH_FILE") else None
        path = Path(os.environ.get("RATTLER_AUTH_FILE") or pixis or "~/.rattler/credentials.json")
        stored = read_optional(
            path.expanduser(),
            _read_rattler,
            what="rattler's credentials file",
            named_by=variable or ("authentication-override-file" if pixis else None),
            broken=BROKEN_JSON,
        )
        return cls(
            stored or {},
            read_optional(
                Path(os.environ.get("NETRC") or "~/.netrc").expanduser(),
                netrc.netrc,
                what="the netrc file",
                named_by="NETRC" if os.environ.get("NETRC") else None,
                broken=(netrc.NetrcParseError, UnicodeDecodeError),
            ),
        )

    def address(self, url: str) -> str:
        """Return the address to ask for: a conda token is a part of its path."""
        token = self._of(urlsplit(url).hostname or "").get("CondaToken")
        if not isinstance(token, str):
            return url
        parts = urlsplit(url)
        return parts._replace(path=f"/t/{token}{parts.path}").geturl()

    def header(self, host: str) -> str | None:
        """Return the ``Authorization`` header for a host, or ``None``."""
        known = self._of(host)
        if isinstance(token := known.get("BearerToken"), str):
            return f"Bearer {token}"
        if isinstance(oauth := known.get("OAuth"), dict) and "access_token" in oauth:
            return f"Bearer {oauth['access_token']}"
        if isinstance(basic := known.get("BasicHTTP"), dict):
            return _basic(str(basic.get("username", "")), str(basic.get("password", "")))
        entry = self.netrc.authenticators(host) if self.netrc else None
        return _basic(entry[0] or "", entry[2] or "") if entry else None

    def sign(self, request: httpx2.Request) -> httpx2.Request:
        """Add the host's credentials to a request that has none; a redirect elsewhere doesn't carry them."""
        header = self.header(request.url.host)
        if header and "Authorization" not in request.headers:
            request.headers["Authorization"] = header
        return request

    def _of(self, host: str) -> Mapping[str, Any]:
        labels = host.split(".")
        wildcards = ("*." + ".".join(labels[start:]) for start in range(len(labels) - 1))
        return next((self.rattler[name] for name in (host, *wildcards) if name in self.rattler), {})


def make_client(credentials: Credentials, *, connections: int = 16) -> httpx2.Client:
    """Return a client for downloads: follows redirects, and takes proxies from the environment.

    :raises InputError: the proxy or certificate variables can't be used.
    """
    known = certificates()
    try:
        return httpx2.Client(
            auth=credentials.sign,
            headers={"User-Agent": f"bundler/{__version__}", "Accept-Encoding": "identity"},
            verify=known[0] if known else True,
            timeout=httpx2.Timeout(READ_SECONDS, connect=CONNECT_SECONDS, pool=None),
            limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=connections),
            follow_redirects=True,
        )
    except (ImportError, ValueError, httpx2.InvalidURL) as problem:
        raise InputError(
            f"the proxy variables can't be used: {problem}",
            hint="HTTPS_PROXY, HTTP_PROXY and ALL_PROXY take http://host:port, not socks://; NO_PROXY takes "
            "hosts and domains with commas between them",
        ) from problem


def certificates() -> tuple[ssl.SSLContext, str] | None:
    """Return whom to trust, as the first of :data:`CERTIFICATE_VARIABLES` names it, with its path.

    :raises InputError: naming the variable whose file can't be used.
    """
    for variable in CERTIFICATE_VARIABLES:
        if path := os.environ.get(variable):
            try:
                folder = Path(path).is_dir()
                return ssl.create_default_context(
                    cafile=None if folder else path, capath=path if folder else None
                ), path
            except (OSError, ssl.SSLError) as problem:
                raise InputError(
                    f"the certificates that {variable} names can't be read: {problem}", where=path
                ) from problem
    return None


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _read_rattler(path: Path) -> dict[str, dict[str, Any]]:
    return msgspec.json.decode(path.read_bytes(), type=dict[str, dict[str, Any]])
