"""What a host is like, as far as serving goes: read without changing it, written to JSON and back.

``bundler doctor --describe`` writes these facts on the host without a network; carried back,
``--target FILE`` compares them with a model before anything is packed.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import psutil

from bundler.common.ask import ask
from bundler.common.broken import BROKEN_JSON
from bundler.common.elf import library_problem
from bundler.errors import InputError
from bundler.host.gpu import Gpu, read_gpus

if TYPE_CHECKING:
    from collections.abc import Mapping

LIBRARIES = ("libcuda.so", "libcuda.so.1", "libnuma.so.1")
"""Shared libraries that the server looks for outside its environment."""
LIBRARY_FOLDERS = (
    "/usr/lib/x86_64-linux-gnu",
    "/lib/x86_64-linux-gnu",
    "/usr/lib64",
    "/lib64",
    "/usr/lib/wsl/lib",
    "/usr/local/nvidia/lib64",
    "/usr/local/cuda/compat",
)
RESOLVE_SECONDS = 3.0
"""How long the host's own name may take to resolve before it counts as not resolving."""


class HostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A host, described."""

    format: int = 1
    hostname: str = ""
    address: str | None = None
    """What the host's own name resolves to, or ``None``."""
    machine: str = ""
    """``x86_64``."""
    kernel: str = ""
    glibc: str | None = None
    driver: str | None = None
    """The version of the NVIDIA driver in the kernel: ``570.124.06``. It may be loaded where its library,
    and with it the GPUs, can't be reached."""
    driver_cuda: str | None = None
    """The newest CUDA that the driver supports: ``12.8``."""
    gpu_problem: str | None = None
    """Why the GPUs couldn't be read, where they couldn't."""
    gpus: tuple[Gpu, ...] = ()
    cuda_visible_devices: str | None = None
    """The variable as it was set, or ``None``."""
    fabric_manager: bool | None = None
    """Whether the fabric manager's process runs; ``None`` where processes can't be seen."""
    cpus: int = 0
    memory: int = 0
    """Bytes of main memory."""
    memory_available: int = 0
    shm: int | None = None
    """Bytes of /dev/shm."""
    shm_free: int | None = None
    limits: dict[str, int | None] = {}
    """Limits, ``None`` for none: ``nofile``, ``nofile_hard``, ``memlock`` (bytes), ``nproc``; soft, unless
    it says hard. SGLang raises its open files to the hard limit by itself."""
    libraries: dict[str, str | None] = {}
    """Where the loader or the usual folders have each of :data:`LIBRARIES`."""
    unusable_libraries: dict[str, str] = {}
    """Why one of those that are there can't be loaded."""
    ldconfig: str | None = None
    nvidia_smi: str | None = None
    nvcc: str | None = None
    """A CUDA compiler on the host, which nothing needs where SGLang is older than 0.5.11."""
    listening: tuple[int, ...] = ()
    """TCP ports that something listens on."""
    interfaces: dict[str, tuple[str, ...]] = {}
    """Addresses of each network interface that is up."""

    @property
    def visible(self) -> tuple[Gpu, ...]:
        """The GPUs that a process started now would see, in its order."""
        return visible_gpus(self.gpus, self.cuda_visible_devices)


def visible_gpus(gpus: tuple[Gpu, ...], variable: str | None) -> tuple[Gpu, ...]:
    """Return the GPUs that ``CUDA_VISIBLE_DEVICES`` leaves, in its order.

    As CUDA reads it: indices or the beginnings of UUIDs; the first invalid entry ends the list.
    """
    if variable is None:
        return gpus
    chosen: list[Gpu] = []
    for word in (part.strip() for part in variable.split(",")):
        match = [gpu for gpu in gpus if word and (str(gpu.index) == word or gpu.uuid.startswith(word))]
        if len(match) != 1 or match[0] in chosen:
            break
        chosen += match
    return tuple(chosen)


def describe() -> HostFacts:
    """Read this host. Nothing it does changes the host."""
    reading = read_gpus()
    memory = psutil.virtual_memory()
    shm = _disk("/dev/shm")
    libraries = find_libraries(LIBRARIES)
    problems = {name: library_problem(Path(path)) for name, path in libraries.items() if path}
    return HostFacts(
        hostname=socket.gethostname(),
        address=_own_address(),
        machine=platform.machine(),
        kernel=platform.release(),
        glibc=_glibc(),
        driver=reading.driver,
        driver_cuda=reading.driver_cuda,
        gpu_problem=reading.problem,
        gpus=reading.gpus,
        cuda_visible_devices=os.environ.get("CUDA_VISIBLE_DEVICES"),
        fabric_manager=_runs("nv-fabricmanager"),
        cpus=len(os.sched_getaffinity(0)),
        memory=memory.total,
        memory_available=memory.available,
        shm=shm[0] if shm else None,
        shm_free=shm[1] if shm else None,
        limits=_limits(),
        libraries=libraries,
        unusable_libraries={name: problem for name, problem in problems.items() if problem},
        ldconfig=_program("ldconfig"),
        nvidia_smi=_program("nvidia-smi"),
        nvcc=_nvcc(),
        listening=listening_ports(),
        interfaces=interfaces(),
    )


def virtual_packages(host: HostFacts) -> dict[str, str]:
    """Return what conda calls a host's virtual packages; an empty version stands for what it lacks."""
    capabilities = (gpu.compute_capability for gpu in host.gpus if gpu.compute_capability)
    return {
        "__cuda": host.driver_cuda or "",
        "__cuda_arch": min(capabilities, key=lambda text: [*map(int, text.split("."))], default=""),
        "__glibc": host.glibc or "",
        "__linux": host.kernel.partition("-")[0],
    }


def read_target(path: Path) -> HostFacts:
    """Read the facts that ``doctor --describe`` wrote on another host.

    :raises InputError: the file isn't there or isn't such a description.
    """
    hint = "write it on that host with: bundler doctor --describe > target.json"
    try:
        facts = msgspec.json.decode(path.read_bytes(), type=HostFacts)
    except OSError as problem:
        raise InputError(
            f"can't read the described host: {problem.strerror}", where=path, hint=hint
        ) from problem
    except BROKEN_JSON as problem:
        raise InputError(f"this is no described host: {problem}", where=path, hint=hint) from problem
    if not facts.hostname:
        raise InputError("this is no described host: it names none", where=path, hint=hint)
    return facts


def find_libraries(
    names: tuple[str, ...], extra: tuple[Path, ...] = (), variables: Mapping[str, str] = os.environ
) -> dict[str, str | None]:
    """Return where the loader's cache or the usual folders have each library.

    :param extra: folders looked into first, as an environment's ``lib``.
    :param variables: those of the process that is to find them.
    """
    cached = _loader_cache()
    path = (part for part in variables.get("LD_LIBRARY_PATH", "").split(":") if part)
    folders = [*extra, *(Path(part) for part in (*path, *LIBRARY_FOLDERS))]
    found: dict[str, str | None] = {}
    for name in names:
        there = (str(folder / name) for folder in folders if (folder / name).exists())
        found[name] = next(there, cached.get(name))
    return found


def listening_ports() -> tuple[int, ...]:
    """Return the TCP ports that something listens on, in this network namespace."""
    try:
        connections = psutil.net_connections("tcp")
    except (psutil.Error, OSError):
        return ()
    return tuple(
        sorted({one.laddr.port for one in connections if one.laddr and one.status == psutil.CONN_LISTEN})
    )


def interfaces() -> dict[str, tuple[str, ...]]:
    """Return the addresses of each network interface that is up."""
    states = psutil.net_if_stats()
    families = (socket.AF_INET, socket.AF_INET6)
    return {
        name: tuple(one.address.split("%")[0] for one in addresses if one.family in families)
        for name, addresses in psutil.net_if_addrs().items()
        # Brought up by the administrator; whether the link has settled yet is another matter.
        if name in states and "up" in states[name].flags.split(",")
    }


def _loader_cache() -> dict[str, str]:
    """Read ``ldconfig -p``: library name to path."""
    program = _program("ldconfig")
    if program is None:
        return {}
    try:
        said = ask([program, "-p"], seconds=20).out
    except OSError:
        return {}
    pairs = (line.strip().split(" => ") for line in said.splitlines() if "x86-64" in line)
    return {pair[0].split()[0]: pair[1] for pair in reversed(list(pairs)) if len(pair) == 2}


def _program(name: str) -> str | None:
    """Find a program on PATH or in the system's folders, which a plain user's PATH may lack."""
    return shutil.which(name) or shutil.which(name, path="/sbin:/usr/sbin:/usr/local/nvidia/bin")


def _nvcc() -> str | None:
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    return shutil.which("nvcc") or shutil.which("nvcc", path=f"{home}/bin")


def _glibc() -> str | None:
    name, version = platform.libc_ver()
    return version if name == "glibc" else None


def _own_address() -> str | None:
    """Resolve the host's own name, giving up soon: without a network a resolver may wait for minutes."""
    answer: list[str] = []

    def resolve() -> None:
        try:
            answer.append(socket.gethostbyname(socket.gethostname()))
        except OSError:
            return

    thread = threading.Thread(target=resolve, daemon=True)
    thread.start()
    thread.join(RESOLVE_SECONDS)
    return answer[0] if answer else None


def _limits() -> dict[str, int | None]:
    kinds = {
        "nofile": resource.RLIMIT_NOFILE,
        "memlock": resource.RLIMIT_MEMLOCK,
        "nproc": resource.RLIMIT_NPROC,
    }
    values = {name: resource.getrlimit(kind)[0] for name, kind in kinds.items()}
    values["nofile_hard"] = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return {name: None if value == resource.RLIM_INFINITY else value for name, value in values.items()}


def _disk(folder: str) -> tuple[int, int] | None:
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    return usage.total, usage.free


def _runs(name: str) -> bool | None:
    """Say whether a process of that name runs."""
    try:
        return any((process.info["name"] or "").startswith(name) for process in psutil.process_iter(["name"]))
    except (psutil.Error, OSError):
        return None
