"""Checks of memory, limits, libraries and network: pure functions of what the host has and what is wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bundler.common.units import size_text
from bundler.host.finding import fail, good, warn
from bundler.host.needs import numbers, version_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bundler.host.facts import HostFacts
    from bundler.host.finding import Finding
    from bundler.host.needs import Needs

OLDEST_GLIBC = "2.28"
"""What the environments' own interpreters need."""
RANK_MEMORY = 2e9
"""Bytes of main memory that a rank's Python and CUDA context take at the least."""
RANK_MEMORY_EASY = 6e9
"""Bytes of main memory with which a rank loads without pressing others out."""
SHM_LEAST = 128 * 2**20
"""Bytes of /dev/shm under which NCCL fails between GPUs of one host (containers give 64 MiB)."""
SHM_EASY = 2**30
NOFILE = 65535
"""Open files that SGLang raises its limit to."""
NOFILE_LEAST = 4096
CUDNN_FOR_IMAGES = (9, 15)


def check_platform(host: HostFacts, needs: Needs) -> Iterator[Finding]:
    """The processor and glibc against the environment's wheels, and what Python itself needs."""
    if host.machine == "x86_64":
        yield good("system", "processor", host.machine)
    else:
        fix = "use a host with such a processor; the environments are built for it"
        yield fail("system", "processor", host.machine or "unknown", "x86_64", fix)
    if needs.stack.glibc is None and needs.environment is None:
        return
    wanted = f"{needs.stack.glibc or OLDEST_GLIBC} or newer"
    if host.glibc is None:
        yield warn("system", "glibc", "none found", wanted, "a distribution with glibc")
    elif numbers(host.glibc) < numbers(needs.stack.glibc or OLDEST_GLIBC):
        fix = "a newer distribution on the host, or a container of one; glibc can't travel in a bundle"
        yield fail("system", "glibc", host.glibc, wanted, fix)
    else:
        yield good("system", "glibc", host.glibc, wanted)


def check_memory(host: HostFacts, needs: Needs) -> Iterator[Finding]:
    """Main memory against the ranks of this node and what the model's publisher asks for."""
    ranks = max(1, needs.tp_on(len(host.visible)) // needs.nnodes)
    seen = f"{size_text(host.memory_available)} available of {size_text(host.memory)}"
    asked = (needs.requires.host_memory_gb or 0) * 1e9
    if host.memory_available < RANK_MEMORY * ranks:
        wanted = f"{size_text(RANK_MEMORY * ranks)} for {ranks} ranks"
        yield fail("memory", "main memory", seen, wanted, "end other programs, or use a larger host")
    elif host.memory_available < RANK_MEMORY_EASY * ranks:
        wanted = f"{size_text(RANK_MEMORY_EASY * ranks)} for {ranks} ranks"
        yield warn("memory", "main memory", seen, wanted, "loading may be slow or be killed")
    elif host.memory < asked:
        wanted = f"{size_text(asked)}, says the model's publisher"
        yield warn("memory", "main memory", seen, wanted, "loading reads the weights more than once")
    else:
        yield good("memory", "main memory", seen)


def check_shm(host: HostFacts, needs: Needs) -> Iterator[Finding]:
    """/dev/shm, through which the ranks of one host talk."""
    name, fix = "/dev/shm", "mount -o remount,size=16G /dev/shm (in a container: --shm-size=16g)"
    if host.shm is None or host.shm_free is None:
        yield fail("memory", name, "not there", "a tmpfs", "mount -t tmpfs tmpfs /dev/shm")
        return
    seen = f"{size_text(host.shm_free)} free of {size_text(host.shm)}"
    several = needs.tp_on(len(host.visible)) > 1
    if several and host.shm_free < SHM_LEAST:
        yield fail("memory", name, seen, f"{size_text(SHM_LEAST)} free", fix)
    elif host.shm_free < (SHM_EASY if several else SHM_LEAST):
        yield warn("memory", name, seen, f"{size_text(SHM_EASY)} free", fix)
    else:
        yield good("memory", name, seen)


def check_limits(host: HostFacts, needs: Needs) -> Iterator[Finding]:
    """Limits of open files and locked memory."""
    files = host.limits.get("nofile_hard", host.limits.get("nofile"))
    if files is not None and files < NOFILE_LEAST:
        yield fail("system", "open files", str(files), f"{NOFILE} (hard limit)", f"ulimit -Hn {NOFILE}")
    elif files is not None and files < NOFILE:
        fix = f"raise it in /etc/security/limits.conf: * hard nofile {NOFILE}"
        yield warn("system", "open files", str(files), f"{NOFILE} (hard limit)", fix)
    else:
        yield good("system", "open files", "unlimited" if files is None else str(files))
    locked = host.limits.get("memlock")
    if "memlock" not in host.limits or needs.nnodes == 1:
        return
    if locked is None:
        yield good("system", "locked memory", "unlimited")
    else:
        fix = "ulimit -l unlimited: NCCL over InfiniBand pins memory"
        yield warn("system", "locked memory", size_text(locked), "unlimited", fix)


def check_libraries(host: HostFacts, needs: Needs) -> Iterator[Finding]:
    """The driver's library, the tools around it, and a compiler for CUDA where SGLang wants one."""
    where = host.libraries.get("libcuda.so.1")
    if host.driver is None:
        pass  # it comes with the driver, as does nvidia-smi
    elif where is None:
        fix = "the driver's user-space part is missing (in a container: start it with the NVIDIA runtime)"
        yield fail("system", "libcuda.so.1", "not found", "the driver's library", fix)
    elif problem := host.unusable_libraries.get("libcuda.so.1"):
        fix = "install the driver's user-space part again, of the version that the kernel has: nvidia-smi"
        yield fail("system", "libcuda.so.1", f"{where} {problem}", "the driver's library", fix)
    else:
        yield good("system", "libcuda.so.1", where)
        linked = host.libraries.get("libcuda.so")
        yield good("system", "libcuda.so", linked or "not there: bundler gives Triton a link of its own")
    if host.ldconfig is None:
        yield warn(
            "system", "ldconfig", "not found", "/sbin/ldconfig", "install it: libraries are found by it"
        )
    else:
        yield good("system", "ldconfig", host.ldconfig)
    if host.nvidia_smi is None and host.driver is not None:
        yield warn("system", "nvidia-smi", "not found", "on PATH", "SGLang asks it for the GPUs' memory")
    if needs.stack.sglang and version_in(needs.stack.sglang, ">=0.5.11"):
        if host.nvcc is None:
            fix = "install the CUDA toolkit on the host, or serve with SGLang 0.5.7"
            yield warn(
                "system", "nvcc", "not found", f"SGLang {needs.stack.sglang} compiles kernels with it", fix
            )
        else:
            yield good("system", "nvcc", host.nvcc)


def check_names(host: HostFacts, needs: Needs) -> Iterator[Finding]:
    """The host's own name and its loopback interface, by which the ranks find each other."""
    if host.address is None:
        fix = f"add to /etc/hosts: 127.0.1.1 {host.hostname}"
        yield warn("network", "hostname", f"{host.hostname} doesn't resolve", "an address", fix)
    else:
        yield good("network", "hostname", f"{host.hostname} is {host.address}")
    if "127.0.0.1" in host.interfaces.get("lo", ()):
        yield good("network", "loopback", "up")
    else:
        yield fail("network", "loopback", "down", "lo with 127.0.0.1", "ip link set lo up")
    if needs.nnodes > 1:
        outside = [name for name, addresses in host.interfaces.items() if name != "lo" and addresses]
        if outside:
            yield good("network", "interfaces", ", ".join(outside))
        else:
            yield fail("network", "interfaces", "none but lo", "one that reaches the other nodes")


def check_port(host: HostFacts, needs: Needs) -> Iterator[Finding]:
    """The port that the server is to listen on."""
    if needs.port is None:
        return
    if needs.port in host.listening:
        fix = f"see who: ss -ltnp 'sport = :{needs.port}'; or choose another: --port {needs.port + 1}"
        yield fail("network", "port", f"{needs.port} is taken", "free", fix)
    else:
        yield good("network", "port", f"{needs.port} is free")


def check_cudnn(host: HostFacts, needs: Needs) -> Iterator[Finding]:
    """cuDNN, where the model sees images: SGLang refuses torch 2.9.1 with an older one."""
    if not needs.facts.vision or needs.stack.cudnn is None or not version_in(needs.stack.torch, "==2.9.1"):
        return
    if numbers(needs.stack.cudnn) >= CUDNN_FOR_IMAGES:
        yield good("environment", "cuDNN", needs.stack.cudnn, "9.15 or newer for images")
    else:
        fix = "lock nvidia-cudnn-cu12 9.16.0.29, or set SGLANG_DISABLE_CUDNN_CHECK=1 (slower images)"
        yield fail("environment", "cuDNN", needs.stack.cudnn, "9.15 or newer for images", fix)


def check_versions(host: HostFacts, needs: Needs) -> Iterator[Finding]:
    """SGLang's version against the model's."""
    wanted = needs.requires.sglang
    if needs.environment is not None and needs.model is not None and needs.stack.sglang is None:
        seen = f"the environment {needs.environment} has no sglang"
        fix = "choose one that has it: --env NAME; or lock sglang in it and pack it again"
        yield fail("environment", "SGLang", seen, wanted or "sglang", fix)
    if needs.model is None or not wanted or needs.stack.sglang is None:
        return
    if version_in(needs.stack.sglang, wanted):
        yield good("environment", "SGLang", needs.stack.sglang, f"{wanted} for {needs.model}")
    else:
        fix = "serve it from an environment with that SGLang"
        yield fail("environment", "SGLang", needs.stack.sglang, f"{wanted} for {needs.model}", fix)
