from __future__ import annotations

import http.client
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from bundler.artifact import Artifact
from bundler.errors import InputError
from bundler.install.mirror import LoopbackMirror, origins

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WHEEL = b"0123456789" * 10


class Addresses:
    def relative(self, url: str) -> str:
        return "mirror/" + url.split("://", 1)[1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "mirror"
    (root / "files.test" / "whl").mkdir(parents=True)
    (root / "files.test" / "whl" / "torch-2.9.1+cu128.whl").write_bytes(WHEEL)
    (root / "files.test" / "empty").write_bytes(b"")
    (tmp_path / "secret").write_bytes(b"secret")
    (root / "files.test" / "leaves").symlink_to(tmp_path / "secret")
    (root / "out").symlink_to(tmp_path)
    (root / "files.test" / "stays").symlink_to("whl/torch-2.9.1+cu128.whl")
    return root


@pytest.fixture
def mirror(folder: Path) -> Iterator[LoopbackMirror]:
    with LoopbackMirror(folder) as running:
        yield running


def ask(
    mirror: LoopbackMirror, target: str, method: str = "GET", **headers: str
) -> tuple[int, bytes, http.client.HTTPMessage]:
    host, _, port = mirror.url.removeprefix("http://").partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=5)
    connection.putrequest(method, target, skip_host=True)
    for key, value in ({"Host": f"{host}:{port}"} | headers).items():
        connection.putheader(key, value)
    connection.endheaders()
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content, answer.headers


def test_an_encoded_address(mirror: LoopbackMirror) -> None:
    status, content, headers = ask(mirror, "/files.test/whl/torch-2.9.1%2Bcu128.whl")
    assert (status, content) == (200, WHEEL)
    assert headers["Content-Length"] == "100"
    assert [(r.method, r.path, r.status, r.content) for r in mirror.requests] == [
        ("GET", "/files.test/whl/torch-2.9.1+cu128.whl", 200, 100)
    ]
    assert mirror.missing == []


@pytest.mark.parametrize("host", ["evil.test", "127.0.0.1", "localhost:{port}", "127.0.0.1:1"])
def test_it_answers_to_its_own_address_alone(mirror: LoopbackMirror, host: str) -> None:
    """A page's script reaches 127.0.0.1 by a name that it made resolve to it."""
    port = mirror.url.rpartition(":")[2]
    status, content, _ = ask(mirror, "/files.test/stays", Host=host.format(port=port))
    assert status == 421 and WHEEL not in content


def test_plain_and_query(mirror: LoopbackMirror) -> None:
    assert ask(mirror, "/files.test/whl/torch-2.9.1+cu128.whl?x=/../..")[1] == WHEEL
    assert ask(mirror, "/files.test/empty")[:2] == (200, b"")
    assert ask(mirror, "/files.test/stays")[1] == WHEEL


def test_a_range_is_answered_with_the_whole_file(mirror: LoopbackMirror) -> None:
    """As RFC 9110 allows: no installer asks for one."""
    for header in ("bytes=0-9", "bytes=100-", "lines=1-"):
        status, content, headers = ask(mirror, "/files.test/whl/torch-2.9.1+cu128.whl", Range=header)
        assert (status, content, headers["Content-Range"]) == (200, WHEEL, None)


@pytest.mark.parametrize(
    "target",
    [
        "/files.test/absent.whl",
        "/",
        "/files.test",
        "/files.test/whl/",
        "/../secret",
        "/files.test/../../secret",
        "/files.test/%2e%2e/%2e%2e/secret",
        "/files.test/..%2f..%2fsecret",
        "/%2e%2e%2fsecret",
        "/files.test/leaves",
        "/out/secret",
        "//etc/passwd",
        "/%2fetc%2fpasswd",
        "/files.test/./whl/torch-2.9.1+cu128.whl",
        "/files.test/whl/torch-2.9.1+cu128.whl%00.whl",
        "/files.test/whl/torch-2.9.1+cu128.whl/",
        "/files.test/" + "a" * 5000,
        "http://127.0.0.1/files.test/empty",
        "files.test/empty",
        "/%ff%fe",
    ],
)
def test_nothing_but_files_of_the_store(mirror: LoopbackMirror, target: str) -> None:
    status, content, _ = ask(mirror, target)
    assert status == 404
    assert b"secret" not in content
    assert WHEEL not in content


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "BREW"])
def test_other_methods(mirror: LoopbackMirror, method: str) -> None:
    assert ask(mirror, "/files.test/empty", method)[0] == 501


def test_garbage_does_not_end_it(mirror: LoopbackMirror) -> None:
    port = int(mirror.url.rpartition(":")[2])
    for garbage in (b"\0\xff\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"G" * 70_000):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(garbage)
    assert ask(mirror, "/files.test/empty")[0] == 200


def test_what_is_missing_is_remembered_once(mirror: LoopbackMirror) -> None:
    for _ in range(2):
        ask(mirror, "/files.test/whl/click%2B1.whl")
    assert mirror.missing == ["files.test/whl/click+1.whl"]


def test_binds_to_loopback_and_ends(folder: Path) -> None:
    sent: list[int] = []
    with LoopbackMirror(folder, sent.append) as mirror:
        port = int(mirror.url.rpartition(":")[2])
        assert mirror.url.startswith("http://127.0.0.1:")
        open_one = socket.create_connection(("127.0.0.1", port), timeout=5)
        open_one.sendall(
            f"GET /files.test/whl/torch-2.9.1+cu128.whl HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
        )
        assert open_one.recv(10) == b"HTTP/1.1 2"
        # Another address of this host, which a server on all interfaces would answer.
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.2", port), timeout=5)
    assert sum(sent) == 100
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    while open_one.recv(4096):
        pass
    open_one.close()


def test_one_prefix_for_each_origin(mirror: LoopbackMirror) -> None:
    def wheel(url: str) -> Artifact:
        return Artifact("wheel", "w", "1", url, None)

    artifacts = [
        wheel("https://files.test/a/w.whl"),
        wheel("https://files.test/b/w.whl"),
        wheel("http://files.test/w.whl"),
        wheel("http://localhost:8080/w.whl"),
    ]
    assert mirror.prefixes(artifacts, Addresses()) == {
        "http://files.test/": f"{mirror.url}/files.test/",
        "http://localhost:8080/": f"{mirror.url}/localhost:8080/",
        "https://files.test/": f"{mirror.url}/files.test/",
    }
    with pytest.raises(InputError, match="file address"):
        origins([wheel("file:///srv/w.whl")], Addresses())


DOWN = """
import sys, urllib.request
from pathlib import Path
from bundler.install.mirror import LoopbackMirror
with LoopbackMirror(Path(sys.argv[1])) as mirror:
    print(urllib.request.urlopen(mirror.url + "/files.test/whl/torch-2.9.1%2Bcu128.whl").read().decode())
"""


def test_it_raises_the_loopback_interface_of_a_fresh_namespace(folder: Path) -> None:
    cut = ["unshare", "-rn"]
    if subprocess.run([*cut, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no namespaces here")
    command = [*cut, sys.executable, "-c", DOWN, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == WHEEL.decode(), done.stderr


def test_a_loopback_interface_that_stays_down_is_said(folder: Path) -> None:
    """Without the right to raise it: in a namespace that this user doesn't own."""
    drop = ["unshare", "-n", "setpriv", "--inh-caps=-all", "--bounding-set=-all", "--ambient-caps=-all"]
    drop += ["--no-new-privs", "--securebits=+noroot,+noroot_locked"]
    if subprocess.run([*drop, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this user can't make a namespace and give up its rights in it")
    command = [*drop, sys.executable, "-c", DOWN, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "InstallError: the loopback mirror can't listen" in done.stderr
    assert "ip link set lo up" in done.stderr
