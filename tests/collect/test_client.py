"""Proxies, certificates and credentials, over real connections."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
from contextlib import closing
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from bundler.collect.client import Credentials, make_client
from bundler.collect.configuration import Configuration
from bundler.collect.download import Wanted
from bundler.errors import FetchError, InputError
from tests.collect.conftest import Downloader, content, sha
from tests.support.fileserver import FileServer, Proxy, Redirect

if TYPE_CHECKING:
    from pathlib import Path

DATA = content(50_000)


def get(url: str, path: Path, configuration: Configuration | None = None) -> bytes:
    downloader = Downloader(Credentials.load(configuration))
    with closing(downloader.network):
        downloader.download(Wanted(path, (url,), sha(DATA), len(DATA)))
    return path.read_bytes()


@pytest.fixture
def url(server: FileServer) -> str:
    (server.folder / "a").write_bytes(DATA)
    return f"{server.url}a"


def test_proxies_of_the_environment(
    server: FileServer, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Proxy(tmp_path, target=server.url) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        assert get("http://files.example.invalid/a", tmp_path / "out") == DATA
        assert [one.raw_path for one in proxy.requests] == ["http://files.example.invalid/a"]
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert get(url, tmp_path / "direct") == DATA
        assert len(proxy.requests) == 1


def test_a_proxy_that_is_not_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks9://127.0.0.1:1")
    with pytest.raises(InputError, match="proxy"):
        make_client(Credentials())


def test_netrc(server: FileServer, url: str, tmp_path: Path, home: Path) -> None:
    server.credentials = ("somebody", "secret word")
    with pytest.raises(FetchError, match="401") as caught:
        get(url, tmp_path / "out")
    assert caught.value.hint and "netrc" in caught.value.hint
    assert server.requests[0].authorization is None
    (home / ".netrc").write_text('machine 127.0.0.1 login somebody password "secret word"\n')
    (home / ".netrc").chmod(0o600)
    assert get(url, tmp_path / "out") == DATA


def test_credentials_do_not_follow_a_redirect_to_another_host(
    server: FileServer, url: str, tmp_path: Path, home: Path
) -> None:
    (home / ".netrc").write_text("machine 127.0.0.1 login somebody password secret\n")
    (home / ".netrc").chmod(0o600)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a").write_bytes(DATA)
    with FileServer(tmp_path / "other") as other:
        server.always("/a", Redirect(f"http://localhost:{other.port}/a"))
        assert get(url, tmp_path / "out") == DATA
        assert server.requests[0].authorization
        assert other.requests[0].authorization is None


def test_broken_netrc(home: Path) -> None:
    (home / ".netrc").write_text("machine\n")
    with pytest.raises(InputError, match="netrc") as caught:
        Credentials.load()
    assert caught.value.where == home / ".netrc"


@pytest.mark.parametrize(
    ("stored", "header"),
    [
        ({"BasicHTTP": {"username": "u", "password": "p"}}, "Basic dTpw"),
        ({"BearerToken": "t0"}, "Bearer t0"),
        ({"OAuth": {"access_token": "t1", "token_endpoint": ""}}, "Bearer t1"),
    ],
)
def test_rattlers_credentials(
    server: FileServer, url: str, tmp_path: Path, home: Path, stored: dict[str, object], header: str
) -> None:
    (home / ".rattler").mkdir()
    (home / ".rattler/credentials.json").write_text(json.dumps({"127.0.0.1": stored}))
    get(url, tmp_path / "out")
    assert server.requests[0].authorization == header


def test_rattlers_credentials_of_a_domain_and_a_named_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "auth.json").write_text(json.dumps({"*.example.invalid": {"CondaToken": "tk"}}))
    loaded = Credentials.load(Configuration(authentication_file=tmp_path / "auth.json"))
    assert loaded.address("https://a.b.example.invalid/forge/x") == (
        "https://a.b.example.invalid/t/tk/forge/x"
    )
    assert loaded.address("https://example.test/forge/x") == "https://example.test/forge/x"
    monkeypatch.setenv("RATTLER_AUTH_FILE", str(tmp_path / "none.json"))
    with pytest.raises(InputError, match="isn't there"):
        Credentials.load()


@pytest.fixture
def secure(tmp_path: Path, server: FileServer) -> tuple[str, Path]:
    """Return the address of an HTTPS server and its own certificate."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    words += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    try:
        subprocess.run(["openssl", *words], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no openssl to make a certificate")
    folder = str(server.folder)

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=folder)  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.daemon_threads = True
    running.socket = context.wrap_socket(running.socket, server_side=True)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    return f"https://localhost:{running.server_address[1]}/a", certificate


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_certificates_of_the_environment(
    secure: tuple[str, Path], url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    address, certificate = secure
    with pytest.raises(FetchError, match="isn't trusted") as caught:
        get(address, tmp_path / "out")
    assert caught.value.hint and "SSL_CERT_FILE" in caught.value.hint
    monkeypatch.setenv(variable, str(certificate))
    assert get(address, tmp_path / "out") == DATA
    monkeypatch.setenv(variable, str(tmp_path / "none.pem"))
    with pytest.raises(InputError, match=variable):
        make_client(Credentials())


@pytest.mark.parametrize("value", ["[::1", "::1/128,*.a b", ",,", "http://x/"])
def test_an_odd_no_proxy_is_no_defect(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("NO_PROXY", f"{value},127.0.0.1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert get(url, tmp_path / "out") == DATA
