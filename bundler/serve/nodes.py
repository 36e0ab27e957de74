"""The link between the bundlers of several nodes: when one node's server ends, the others needn't wait.

SGLang's ranks wait for each other in torch's rendezvous, for many minutes, and don't learn that a node is
gone. So the first node's bundler listens one port below ``--dist-init-addr``, and the others connect to it
and stay. Over it go lines: ``hello RANK``, ``ready``, ``failed CAUSE``, ``bye``. It carries nothing else: who
reaches it can at most end a start. Where a firewall forbids it, each node waits for itself alone.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

from bundler.host.network import split_address

if TYPE_CHECKING:
    from bundler.serve.launch import ServerLaunch

RETRY_SECONDS = 0.5
CONNECT_SECONDS = 5.0
LONGEST = 500
"""Characters of a cause that are passed on."""


class NodeLink:
    """One node's end of the link."""

    def __init__(self, rank: int, nnodes: int, host: str, port: int) -> None:
        """Open the link: listen on the first node, connect on the others, both in the background.

        :param host: the first node's address.
        :param port: the link's port on it.
        """
        self.rank, self.nnodes = rank, nnodes
        self.whole_ready = threading.Event()
        """Set when the first node's server is ready: the model answers."""
        self.joined: set[int] = set()
        """Ranks that are or were connected; on a node that isn't the first, 0 once it is reached."""
        self._address = (host, port)
        self._reason: str | None = None
        self._peers: dict[int, socket.socket] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._listener: socket.socket | None = None
        self.problem: str | None = None
        """Why there is no link, where there is none."""
        if rank == 0:
            self._listen()
        else:
            threading.Thread(target=self._connect, name="node link", daemon=True).start()

    def reason(self) -> str | None:
        """Say why waiting has become pointless; ``None`` as long as it hasn't."""
        return self._reason

    def ready(self) -> None:
        """Tell the others that this node's server is ready."""
        if self.rank == 0:
            self.whole_ready.set()
        self._tell("ready")

    def failed(self, cause: str) -> None:
        """Tell the others that this node's server failed."""
        self._tell("failed " + " ".join(cause.split())[:LONGEST])

    def close(self, *, bye: bool) -> None:
        """Close the link.

        :param bye: whether the server goes on without it; else the others take the end for this node's end.
        """
        self._closing.set()
        if bye:
            self._tell("bye")
        with self._lock:
            for peer in self._peers.values():
                _shut(peer)
            self._peers.clear()
        if self._listener is not None:
            _shut(self._listener)

    def _tell(self, line: str) -> None:
        with self._lock:
            for peer in self._peers.values():
                with contextlib.suppress(OSError):
                    peer.sendall(line.encode() + b"\n")

    def _listen(self) -> None:
        try:
            self._listener = socket.create_server(self._address, backlog=self.nnodes)
        except OSError as problem:
            self.problem = f"can't listen on {self._address[0]}:{self._address[1]}: {problem.strerror}"
            return
        threading.Thread(target=self._accept, name="node link", daemon=True).start()

    def _accept(self) -> None:
        while self._listener is not None and not self._closing.is_set():
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._follow, args=(peer, None), daemon=True).start()

    def _connect(self) -> None:
        while not self._closing.is_set():
            try:
                peer = socket.create_connection(self._address, timeout=CONNECT_SECONDS)
            except OSError as problem:
                self.problem = f"{self._address[0]}:{self._address[1]}: {problem.strerror or problem}"
                self._closing.wait(RETRY_SECONDS)
                continue
            self.problem = None
            peer.settimeout(None)
            with contextlib.suppress(OSError):
                peer.sendall(f"hello {self.rank}\n".encode())
            self._follow(peer, 0)
            return

    def _follow(self, peer: socket.socket, rank: int | None) -> None:
        """Read a peer's lines until it goes."""
        if rank is not None:
            self._join(rank, peer)
        goes_on = False
        with contextlib.suppress(OSError), peer.makefile(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                word, _, rest = line.strip().partition(" ")
                if word == "hello" and rank is None and rest.isdigit() and int(rest) < self.nnodes:
                    rank = int(rest)
                    self._join(rank, peer)
                elif word == "ready" and rank == 0:
                    self.whole_ready.set()
                elif word == "failed" and rank is not None:
                    self._end(f"the server of node rank {rank} failed: {rest}")
                elif word == "bye":
                    goes_on = True
        if rank is not None and not goes_on and not self._closing.is_set():
            self._end(f"the server of node rank {rank} ended")
        with self._lock:
            if rank is not None:
                self._peers.pop(rank, None)
        _shut(peer)

    def _join(self, rank: int, peer: socket.socket) -> None:
        with self._lock:
            self._peers[rank] = peer
            self.joined.add(rank)
        if self.rank == 0 and self.whole_ready.is_set():
            with contextlib.suppress(OSError):
                peer.sendall(b"ready\n")

    def _end(self, reason: str) -> None:
        """Keep the first reason, and pass it on to the other nodes."""
        if self._reason is None:
            self._reason = reason
            if self.rank == 0:
                self.failed(reason)


def open_link(launch: ServerLaunch) -> NodeLink | None:
    """Open the link of a launch on several nodes; ``None`` on one node only."""
    if launch.nnodes == 1 or launch.dist_init_addr is None:
        return None
    host, port = split_address(launch.dist_init_addr)
    return NodeLink(launch.node_rank, launch.nnodes, host, port - 1)


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
