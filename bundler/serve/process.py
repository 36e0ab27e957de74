"""Starting the server and ending it, with nothing left behind."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import time
import uuid
from typing import TYPE_CHECKING

import msgspec

from bundler.common.durable import locked
from bundler.common.units import size_text
from bundler.errors import ServeError, UsageError
from bundler.host.gpu import used_memory
from bundler.serve.launch import prepare
from bundler.serve.process_tree import MARKER, FirstProcess, end_tree, started_at
from bundler.serve.server_record import ServerState, alive, forget, servers, write_state

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bundler.host.facts import HostFacts
    from bundler.serve.launch import ServerLaunch

POLL = 0.1
GRACE = 30.0
"""Seconds a server may take to finish its requests once it was told to stop."""
GPU_SECONDS = 20.0
"""How long GPU memory may take to come back after the last process is gone."""
GPU_SLACK = 256 * 2**20
"""Bytes by which a GPU's memory may differ from before and still count as given back."""


def start(
    launch: ServerLaunch, host: HostFacts, base: Mapping[str, str], *, detach: bool, warms_up: bool = False
) -> tuple[ServerState, subprocess.Popen[bytes]]:
    """Start the server in a session of its own, its output in its log.

    :param base: the user's environment.
    :param detach: whether it outlives this command.
    :param warms_up: whether this command asks it chats before it is ready.
    :raises ServeError: a server of this installation has that port, or the interpreter doesn't start.
    :raises UsageError: the API key can't be used.
    """
    folder, marker = launch.folder, uuid.uuid4().hex
    folder.mkdir(parents=True, exist_ok=True)

    def busy() -> None:
        raise ServeError("another bundler is starting this server just now", where=folder)

    with locked(folder / f"{launch.name}.lock", busy):
        refuse_second(launch)
        if launch.wishes.key_file is not None:
            write_secret(launch.secret, launch.wishes.key_file)
        prepare(launch, host)
        log = _fresh_log(folder / f"{launch.name}.log")
        before = used_memory()
        process = _spawn(launch, {**launch.environment(base), MARKER: marker}, log, _own_folder(folder))
        first = FirstProcess(pid=process.pid, start=started_at(process.pid) or "", marker=marker)
        try:
            state = _state_of(launch, first, log, before, detach)
            if warms_up:
                state = msgspec.structs.replace(state, warmed_by=(os.getpid(), started_at(os.getpid()) or ""))
            write_state(folder, state)
        except BaseException:
            # Nobody would find it again.
            end_tree(first, 0)
            raise
        return state, process


def stop(folder: Path, state: ServerState, grace: float = GRACE) -> list[str]:
    """End a server and forget it; the bundler that runs it in the foreground ends with it, in order.

    :param grace: seconds it may take to finish its requests; 0 kills at once.
    :returns: what is to be said about the memory of its GPUs, a line each; empty where nothing is left.
    :raises ServeError: processes are left that can't be ended.
    """
    left = end_tree(state, _ended_by_supervisor(state, grace))
    if left:
        raise ServeError(
            f"processes of the server can't be ended: {', '.join(map(str, left))}",
            where=state.log,
            hint="they belong to another user, or hang in the driver: see ps and dmesg",
        )
    forget(folder, state)
    return wait_for_gpus(state.gpu_used)


def _ended_by_supervisor(state: ServerState, grace: float) -> float:
    """Have the bundler that runs a server end it, so that it doesn't take the end for a failure.

    :returns: what is left of the seconds of grace.
    """
    pid = state.supervisor
    if pid in (None, os.getpid()) or started_at(pid) != state.supervisor_start:
        return grace
    deadline = time.monotonic() + grace
    try:
        os.kill(pid, signal.SIGTERM)
    except (ProcessLookupError, PermissionError):
        return grace
    while alive(state) and time.monotonic() < deadline:
        time.sleep(POLL)
    return max(0.0, deadline - time.monotonic())


def wait_for_gpus(before: Mapping[str, int], timeout: float = GPU_SECONDS) -> list[str]:
    """Wait until the GPUs' memory is back where it was, and say what is not."""
    deadline = time.monotonic() + timeout
    while True:
        now = used_memory()
        held = {index: used - before.get(str(index), used) for index, used in now.items()}
        kept = {index: more for index, more in held.items() if more > GPU_SLACK}
        if not kept:
            return []
        if time.monotonic() > deadline:
            return [
                f"GPU {index} still holds {size_text(more)} more than before" for index, more in kept.items()
            ]
        time.sleep(0.5)


def read_key(key_file: Path) -> str:
    """Return the API key of a file.

    :raises UsageError: it can't be read, is empty, or others can read it.
    """
    try:
        mode = stat.S_IMODE(key_file.stat().st_mode)
        key = key_file.read_text().strip()
    except OSError as problem:
        raise UsageError(f"can't read the API key: {problem.strerror}", where=key_file) from problem
    if mode & 0o077:
        what = f"others can read the API key (mode {mode:04o})"
        raise UsageError(what, where=key_file, hint=f"chmod 600 {key_file}")
    if not key or any(character.isspace() for character in key):
        raise UsageError("the API key is empty or has spaces in it", where=key_file)
    return key


def write_secret(path: Path, key_file: Path) -> None:
    """Write the flags that must not be seen in the process list, as SGLang's ``--config`` reads them.

    :param key_file: the file with the API key; for its owner alone.
    :raises UsageError: as :func:`read_key`.
    """
    key = read_key(key_file)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        # JSON is YAML, and its quotes keep a key such as 123 or "yes" a text.
        file.write(msgspec.json.encode({"api-key": key}) + b"\n")


def refuse_second(launch: ServerLaunch) -> None:
    """Forget a server of that port and rank that is gone.

    :raises ServeError: it still runs.
    """
    for state in servers(launch.folder, launch.port, launch.node_rank):
        if alive(state):
            raise ServeError(
                f"a server runs here already: {state.model} on port {state.port}, pid {state.pid}",
                where=launch.folder,
                hint=f"stop it with: bundler stop --port {state.port}; or choose another port: --port N",
            )
        forget(launch.folder, state)


def _fresh_log(path: Path) -> Path:
    """Keep the last log beside the new one, which only its owner reads: SGLang prints its flags."""
    if path.exists():
        path.replace(path.with_suffix(".log.1"))
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
    return path


def _own_folder(folder: Path) -> Path:
    """Return an empty folder for the server to run in: Python imports what lies in it, up to 3.10 always."""
    own = folder / "work"
    own.mkdir(mode=0o700, exist_ok=True)
    return own


def _spawn(
    launch: ServerLaunch, environment: dict[str, str], log: Path, folder: Path
) -> subprocess.Popen[bytes]:
    try:
        with log.open("ab") as output:
            return subprocess.Popen(
                launch.argv,
                env=environment,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except OSError as problem:
        raise ServeError(
            f"the interpreter doesn't start: {problem.strerror}",
            where=launch.argv[0],
            hint="install the environment with: bundler install; or name one: --python PATH",
        ) from problem


def _state_of(
    launch: ServerLaunch, first: FirstProcess, log: Path, before: Mapping[int, int], detach: bool
) -> ServerState:
    return ServerState(
        **msgspec.structs.asdict(first),
        started=time.time(),
        model=launch.target.spec.name,
        served_name=launch.served_name,
        environment=launch.target.software.environment,
        url=launch.url,
        port=launch.port,
        tp_size=launch.tp_size,
        nnodes=launch.nnodes,
        node_rank=launch.node_rank,
        log=str(log),
        argv=launch.argv,
        supervisor=None if detach else os.getpid(),
        supervisor_start=None if detach else started_at(os.getpid()),
        api_key_file=str(launch.wishes.key_file) if launch.wishes.key_file else None,
        gpu_used={str(index): used for index, used in before.items()},
    )
