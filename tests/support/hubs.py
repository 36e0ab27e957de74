"""ModelScope and Hugging Face played on loopback, for the real clients of both.

One server answers for the hub and one for its store host, to which the hub redirects large files. Faults are
put in by file: each is used up after so many answers.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LARGE = 64 * 1024
"""Files from this size on lie at the store host, with LFS's sha256."""


@dataclass
class Fault:
    """What happens to the next requests of a file's content."""

    times: int
    status: int = 0
    """Answer with this status; 0 to answer well at first."""
    retry_after: str | None = None
    cut_at: int | None = None
    """Close the connection after so many bytes of the body."""
    flip: int | None = None
    """Alter the byte at this place of the file."""
    ignore_range: bool = False
    slow: float = 0.0
    """Seconds between two pieces of 64 KiB."""
    instead: bytes | None = None
    """Another body than the file's, or the listing's, whole and with status 200."""
    lengthless: bool = False
    """It is sent without its length, and the connection closed."""
    headers: tuple[tuple[str, str], ...] = ()
    """Sent with it."""
    shift: int = 0
    """A range begins so many bytes later than was asked for."""
    mute: float = 0.0
    """Seconds before the answer begins."""


@lru_cache(maxsize=256)
def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@lru_cache(maxsize=256)
def _git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class State:
    """A repository at one commit."""

    commit: str
    files: dict[str, bytes]
    date: int = 1_700_000_000

    def sha256(self, path: str) -> str:
        return _sha256(self.files[path])

    def git_sha1(self, path: str) -> str:
        return _git_sha1(self.files[path])


@dataclass
class Repo:
    """A model on the hub: its states by commit, its branches, and who may read it."""

    states: dict[str, State] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    token: str | None = None
    """Files are given only with this token."""
    terms: bool = False
    """The token is right, and the terms were not accepted: 403."""
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    listing_faults: list[Fault] = field(default_factory=list)
    listed: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the listing says of a file, where it lies: ``sha256``, ``size``; ``None`` leaves the key out."""
    hidden: set[str] = field(default_factory=set)
    """Files that are listed and not there."""

    def put(self, files: dict[str, bytes], commit: str, branch: str = "master") -> State:
        """Make a commit, and move a branch to it."""
        state = State(commit, dict(files), 1_700_000_000 + len(self.states) * 1000)
        self.states[commit] = state
        self.branches[branch] = commit
        self.branches["main"] = commit
        return state

    def state(self, revision: str) -> State | None:
        return self.states.get(self.branches.get(revision, revision))

    def changed_in(self, state: State, path: str) -> State:
        """Return the state in which a file got the content that it has in ``state``."""
        for earlier in self.states.values():
            if earlier.files.get(path) == state.files[path]:
                return earlier
            if earlier is state:
                break
        return state


@dataclass
class Hub:
    """Both hubs at one address: the paths tell which is meant."""

    repos: dict[str, Repo] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Method, path and Range of each request, in their order."""
    store_tokens: list[str] = field(default_factory=list)
    """Authorization headers that the store host saw: there should be none."""
    agents: set[str] = field(default_factory=set)
    """The User-Agent headers that were sent."""
    address: str = ""
    store: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault(self, model: str, path: str) -> Fault | None:
        """Take one use of a file's next fault."""
        with self.lock:
            return _take(self.repos[model].faults.get(path, []))

    def listing_fault(self, model: str) -> Fault | None:
        """Take one use of the listing's next fault."""
        with self.lock:
            return _take(self.repos[model].listing_faults)

    def content_requests(self, path: str) -> list[str | None]:
        """Return the Range of each request for a file's content at the store host."""
        return [
            ranged
            for _, asked, ranged in self.requests
            if asked.startswith("/store/") and asked.endswith(path)
        ]


def _take(faults: list[Fault]) -> Fault | None:
    while faults:
        if faults[0].times > 0:
            faults[0].times -= 1
            return faults[0]
        faults.pop(0)
    return None


class Handler(BaseHTTPRequestHandler):
    """Answers for the hub named by the server."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        path = unquote(url.path)
        with self.hub.lock:
            self.hub.requests.append((self.command, path, self.headers.get("Range")))
            self.hub.agents.add(self.headers.get("User-Agent", ""))
        for pattern, answer in ROUTES:
            match = re.fullmatch(pattern, path)
            if match:
                answer(self, query, **match.groupdict())
                return
        self.json(404, {"Code": 404, "Message": "no such address", "error": "Not Found"})

    def do_PUT(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self.rfile.read(length)
        self.json(200, {"Code": 200, "Data": {"Models": []}})

    def json(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def refused(self, model: str) -> bool:
        """Answer 401 or 403 where the model is gated and the token isn't good for it."""
        repo = self.hub.repos[model]
        if repo.token is None:
            return False
        good = self.headers.get("Authorization") == f"Bearer {repo.token}"
        if good and not repo.terms:
            return False
        status = 403 if good else 401
        headers = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model is restricted."}
        self.json(status, {"Code": status, "Message": "no permission", "error": "gated"}, headers)
        return True

    def failed(self, fault: Fault | None) -> bool:
        """Answer with a fault's status, if it has one."""
        if fault is not None and fault.instead is not None:
            self.send_response(200)
            for name, text in fault.headers:
                self.send_header(name, text)
            if fault.lengthless:
                self.send_header("Connection", "close")
                self.close_connection = True
            else:
                self.send_header("Content-Length", str(len(fault.instead)))
            self.end_headers()
            self.wfile.write(fault.instead)
            return True
        if fault is None or not fault.status:
            return False
        headers = {"Retry-After": fault.retry_after} if fault.retry_after is not None else {}
        self.json(fault.status, {"Code": fault.status, "Message": "try later"}, headers)
        return True

    # ModelScope

    def ms_files(self, query: dict[str, str], model: str) -> None:
        repo = self.hub.repos.get(model)
        if repo is None:
            self.json(404, {"Code": 10010205001, "Message": "model not exists"})
            return
        if self.failed(self.hub.listing_fault(model)):
            return
        if repo.token is not None and repo.terms is False and self.refused(model):
            return
        state = repo.state(query.get("Revision", "master"))
        if state is None:
            self.json(404, {"Code": 404, "Message": "revision not exists"})
            return
        entries = [self._ms_entry(repo, state, path) for path in sorted(state.files)]
        folders = sorted({path.rpartition("/")[0] for path in state.files if "/" in path})
        entries += [{"Path": folder, "Name": folder, "Type": "tree", "Size": 0} for folder in folders]
        self.json(
            200, {"Code": 200, "Data": {"Files": entries, "LatestCommitter": {"Id": "", "ShortId": ""}}}
        )

    @staticmethod
    def _ms_entry(repo: Repo, state: State, path: str) -> dict[str, Any]:
        changed = repo.changed_in(state, path)
        said = {"Sha256": state.sha256(path), "Size": len(state.files[path])}
        said |= {key.capitalize(): value for key, value in repo.listed.get(path, {}).items()}
        entry = {
            "Path": path,
            "Name": path.rpartition("/")[2],
            "Type": "blob",
            "Revision": changed.commit,
            "CommittedDate": changed.date,
            "IsLFS": len(state.files[path]) >= LARGE,
            **said,
        }
        return {key: value for key, value in entry.items() if value is not None}

    def ms_file(self, query: dict[str, str], model: str) -> None:
        self.deliver(model, query.get("Revision", "master"), query["FilePath"])

    def ms_revisions(self, query: dict[str, str], model: str) -> None:
        names = [{"Revision": name} for name in self.hub.repos[model].branches]
        self.json(200, {"Code": 200, "Data": {"RevisionMap": {"Branches": names, "Tags": []}}})

    def ms_search(self, query: dict[str, str]) -> None:
        word = (query.get("search") or "").lower()
        found = [{"id": name} for name in self.hub.repos if word[:4] in name.lower()]
        self.json(200, {"success": True, "data": {"models": found, "total_count": len(found)}})

    # Hugging Face

    def hf_info(self, query: dict[str, str], model: str, revision: str | None = None) -> None:
        repo = self.hub.repos.get(model)
        if repo is None:
            self.json(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return
        if self.failed(self.hub.listing_fault(model)):
            return
        state = repo.state(revision or "main")
        if state is None:
            self.json(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = [self._hf_sibling(repo, state, path) for path in sorted(state.files)]
        self.json(200, {"id": model, "sha": state.commit, "private": False, "siblings": siblings})

    @staticmethod
    def _hf_sibling(repo: Repo, state: State, path: str) -> dict[str, Any]:
        said = repo.listed.get(path, {})
        size = said.get("size", len(state.files[path]))
        entry: dict[str, Any] = {"rfilename": path, "size": size, "blobId": state.git_sha1(path)}
        if len(state.files[path]) >= LARGE:
            sha256 = said.get("sha256", state.sha256(path))
            entry["lfs"] = {"sha256": sha256, "size": size, "pointerSize": 134}
        elif "sha1" in said:
            entry["blobId"] = said["sha1"]
        return entry

    def hf_tree(self, query: dict[str, str], model: str, revision: str) -> None:
        repo, rows = self.hub.repos[model], []
        state = repo.state(revision) or repo.states[revision]
        for path in sorted(state.files):
            one = self._hf_sibling(repo, state, path)
            row = {"type": "file", "oid": one["blobId"], "size": one["size"], "path": path}
            if "lfs" in one:
                row["lfs"] = {**one["lfs"], "oid": one["lfs"]["sha256"]}
            rows.append(row)
        self.json(200, rows)

    def hf_file(self, query: dict[str, str], model: str, revision: str, path: str) -> None:
        self.deliver(model, revision, path)

    def hf_search(self, query: dict[str, str]) -> None:
        word = (query.get("search") or "").lower()
        self.json(200, [{"id": name, "modelId": name} for name in self.hub.repos if word[:4] in name.lower()])

    # Content

    def deliver(self, model: str, revision: str, path: str) -> None:
        if self.refused(model):
            return
        repo = self.hub.repos[model]
        state = repo.state(revision)
        if state is None or path not in state.files or path in repo.hidden:
            self.json(404, {"Code": 404, "Message": "no file"}, {"X-Error-Code": "EntryNotFound"})
            return
        if len(state.files[path]) >= LARGE:
            self.send_response(302)
            self.send_header("Location", f"{self.hub.store}/store/{model}/{state.commit}/{path}")
            self._say_file(state, path)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.content(model, state, path)

    def stored(self, query: dict[str, str], model: str, commit: str, path: str) -> None:
        if self.headers.get("Authorization"):
            self.hub.store_tokens.append(self.headers["Authorization"])
        self.content(model, self.hub.repos[model].states[commit], path)

    def content(self, model: str, state: State, path: str) -> None:
        fault = self.hub.fault(model, path)
        if fault and fault.mute:
            threading.Event().wait(fault.mute)
        if self.failed(fault):
            return
        data = state.files[path]
        if fault and fault.flip is not None:
            data = data[: fault.flip] + bytes([data[fault.flip] ^ 1]) + data[fault.flip + 1 :]
        start, end = self._range(len(data), bool(fault and fault.ignore_range))
        if fault and fault.shift and start:
            start += fault.shift
        self.send_response(206 if (start, end) != (0, len(data)) else 200)
        if (start, end) != (0, len(data)):
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        self.send_header("Content-Length", str(end - start))
        self.send_header("Accept-Ranges", "bytes")
        if self.command == "HEAD":
            self._say_file(state, path)
        self.end_headers()
        if self.command != "HEAD":
            self._send(data[start:end], fault)

    def _say_file(self, state: State, path: str) -> None:
        """Say of a file what Hugging Face's own client asks before it downloads."""
        digest = state.sha256(path)
        self.send_header("ETag", f'"{digest}"')
        self.send_header("X-Linked-Etag", f'"{digest}"')
        self.send_header("X-Linked-Size", str(len(state.files[path])))
        self.send_header("X-Repo-Commit", state.commit)

    def _range(self, size: int, ignore: bool) -> tuple[int, int]:
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if match is None or ignore:
            return 0, size
        return int(match[1]), min(int(match[2]) + 1 if match[2] else size, size)

    def _send(self, data: bytes, fault: Fault | None) -> None:
        if fault and fault.cut_at is not None and fault.cut_at < len(data):
            self.wfile.write(data[: fault.cut_at])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
            return
        if fault is None or not fault.slow:
            self.wfile.write(data)
            return
        pause = threading.Event()
        for begin in range(0, len(data), 65536):
            self.wfile.write(data[begin : begin + 65536])
            self.wfile.flush()
            pause.wait(fault.slow)


ROUTES = (
    (r"/api/v1/models/(?P<model>[^/]+/[^/]+)/repo/files", Handler.ms_files),
    (r"/api/v1/models/(?P<model>[^/]+/[^/]+)/repo", Handler.ms_file),
    (r"/api/v1/models/(?P<model>[^/]+/[^/]+)/revisions", Handler.ms_revisions),
    (r"/openapi/v1/models", Handler.ms_search),
    (r"/api/models", Handler.hf_search),
    (r"/api/models/(?P<model>[^/]+/[^/]+)", Handler.hf_info),
    (r"/api/models/(?P<model>[^/]+/[^/]+)/revision/(?P<revision>.+)", Handler.hf_info),
    (r"/api/models/(?P<model>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)", Handler.hf_tree),
    (r"/store/(?P<model>[^/]+/[^/]+)/(?P<commit>[^/]+)/(?P<path>.+)", Handler.stored),
    (r"/(?P<model>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)", Handler.hf_file),
)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients are killed on purpose."""


def serve(hub: Hub) -> Iterator[Hub]:
    """Answer at two free ports of 127.0.0.1 until the generator is closed."""
    handler = type("HubHandler", (Handler,), {"hub": hub})
    servers = [_Server(("127.0.0.1", 0), handler) for _ in range(2)]
    hub.address, hub.store = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    # Another name of the same machine: clients must not hand their token on to another host.
    hub.store = hub.store.replace("127.0.0.1", "localhost")
    threads = [threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    yield hub
    for server in servers:
        server.shutdown()
        server.server_close()


def read_folder(folder: Path) -> dict[str, bytes]:
    """Return a folder's files as a repository's content."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
