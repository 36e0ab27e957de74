"""The servers of an installation: a small file for each, which survives the command that started it."""

from __future__ import annotations

import contextlib
import pwd
from typing import TYPE_CHECKING

import msgspec

from bundler.common.broken import BROKEN_JSON
from bundler.common.durable import write_atomically
from bundler.errors import NotRunningError
from bundler.generations import home_of
from bundler.installation import RUN
from bundler.serve.environment_checks import writable_folder
from bundler.serve.process_tree import FirstProcess, find_tree, started_at

if TYPE_CHECKING:
    from pathlib import Path


class ServerState(FirstProcess, frozen=True, kw_only=True):
    """One server, as it was started."""

    started: float
    """Seconds since 1970."""
    model: str
    served_name: str
    environment: str | None
    url: str
    port: int
    tp_size: int
    nnodes: int = 1
    node_rank: int = 0
    log: str
    argv: tuple[str, ...]
    supervisor: int | None = None
    """The pid of the bundler that runs it in the foreground."""
    supervisor_start: str | None = None
    api_key_file: str | None = None
    gpu_used: dict[str, int] = msgspec.field(default_factory=dict)
    """Bytes in use on each GPU before it was started, by index."""
    ready_after: float | None = None
    """Seconds until it was ready, once it was."""
    warmed_by: tuple[int, str] | None = None
    """The pid and the start of the bundler that asks it its first chats before it is ready."""
    ranks: dict[str, tuple[str, str]] = msgspec.field(default_factory=dict)
    """Its named processes when it became ready: pid to start and title."""

    @property
    def warming(self) -> bool:
        """Whether first chats are still asked, or will be: it isn't ready yet, whatever ``/health`` says."""
        if self.ready_after is not None or self.warmed_by is None:
            return False
        pid, start = self.warmed_by
        return started_at(pid) == start

    @property
    def lost(self) -> list[str]:
        """The ranks that are gone since it was ready, though the server itself may still be there."""
        return [
            f"{title.split()[0]} (pid {pid})"
            for pid, (start, title) in self.ranks.items()
            if started_at(int(pid)) != start
        ]

    @property
    def name(self) -> str:
        """What tells it from other servers of the installation."""
        return server_name(self.port, self.node_rank)


def server_name(port: int, node_rank: int = 0) -> str:
    """Return the stem of a server's files: its port, and its rank where it isn't the first node."""
    return f"server-{port}" + (f"-rank{node_rank}" if node_rank else "")


def run_folder(root: Path) -> Path:
    """Return where an installation's servers are recorded, whichever generation they run from."""
    return writable_folder(home_of(root), RUN)


def other_users(root: Path) -> list[str]:
    """Return the users whose servers an installation records where this user can't."""
    folder = home_of(root) / RUN
    if folder == run_folder(root):
        return []
    owners: set[int] = set()
    for path in folder.glob("server-*.json"):
        with contextlib.suppress(OSError):
            owners.add(path.stat().st_uid)
    return [_user_name(owner) for owner in sorted(owners)]


def _user_name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"#{number}"


def write_state(folder: Path, state: ServerState) -> None:
    """Record a server. The file is for the user alone: the command line may name secrets."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{state.name}.json"
    write_atomically(path, msgspec.json.format(msgspec.json.encode(state), indent=1) + b"\n", 0o600)


def secret_path(folder: Path, port: int) -> Path:
    """Return the file of the flags of a server that must not be seen in the process list."""
    return folder / f"server-{port}.flags.yaml"


def forget(folder: Path, state: ServerState) -> None:
    """Remove what is written of a server, but its log."""
    for path in (folder / f"{state.name}.json", secret_path(folder, state.port)):
        with contextlib.suppress(OSError):
            path.unlink()


def servers(folder: Path, port: int | None = None, node_rank: int | None = None) -> list[ServerState]:
    """Return the recorded servers, by port, those that ended unexpectedly too.

    :param port: of this port alone.
    :param node_rank: of this rank alone.
    """
    found: list[ServerState] = []
    for path in sorted(folder.glob("server-*.json")):
        with contextlib.suppress(OSError, *BROKEN_JSON):
            found.append(msgspec.json.decode(path.read_bytes(), type=ServerState))
    return [one for one in found if port in (None, one.port) and node_rank in (None, one.node_rank)]


def alive(state: ServerState) -> bool:
    """Say whether any process of a server is left, strays included."""
    return state.running or bool(find_tree(state))


def choose(folder: Path, port: int | None, node_rank: int | None = None) -> ServerState:
    """Return the one server that is meant.

    :raises NotRunningError: there is none, or there are several and none was named.
    """
    found = servers(folder, port, node_rank)
    if len(found) == 1:
        return found[0]
    if not found:
        what = "no server of this installation runs" + (f" on port {port}" if port else "")
        raise NotRunningError(what, where=folder, hint="start it with: bundler serve --detach")
    names = [f"port {one.port}, node rank {one.node_rank}, pid {one.pid}" for one in found]
    raise NotRunningError(
        "which server? several run here",
        findings=names,
        where=folder,
        hint="name one: --port N --node-rank N",
    )
