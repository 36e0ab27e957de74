"""What a GPU host shows of itself and of a server on it, seen from outside of bundler. Standard library."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
from pathlib import Path

NO_MULTICAST = {
    "NCCL_NVLS_ENABLE": "0",
    "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1",
    "NVSHMEM_DISABLE_NVLS": "1",
}
"""NVLink multicast stays off in all that is run."""
FREED = 300
"""MiB by which a GPU's memory may differ from before."""


class StepError(Exception):
    """A step went otherwise than it should."""


class SkipError(Exception):
    """A part can't be run on this machine."""


def gpu_memory() -> list[int]:
    """Return the memory in use on each GPU, in MiB."""
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    done = subprocess.run(query, capture_output=True, text=True, check=True)
    return [int(line) for line in done.stdout.split()]


def nothing_left(before: list[int]) -> None:
    """Compare the GPUs' memory with before, and look for processes of a server.

    :raises StepError: something is left after 30 seconds.
    """
    for _ in range(30):
        now, left = gpu_memory(), server_processes()
        if not left and all(after - first < FREED for first, after in zip(before, now, strict=True)):
            print(f"nothing left; GPU memory in use, MiB: {now}, before: {before}", flush=True)
            return
        time.sleep(1)
    raise StepError(f"left: processes {left}, GPU memory {now} MiB, before {before}")


def multicast_is_off() -> None:
    """Look for the variables that keep multicast off in the server's processes.

    :raises StepError: one lacks them.
    """
    for pid in server_processes():
        variables = _environment(pid)
        if variables is None:
            print(f"process {pid} {_title(pid)[:40]}: its environment can't be read")
            continue
        lacking = [name for name, value in NO_MULTICAST.items() if variables.get(name) != value]
        print(f"process {pid} {_title(pid)[:40]}: {f'lacks {lacking}' if lacking else 'multicast off'}")
        if lacking:
            raise StepError(f"process {pid} may use NVLink multicast: it lacks {', '.join(lacking)}")


def server_processes() -> list[int]:
    """Return the processes of a server: by their titles, or by bundler's marker."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return sorted(pid for pid in pids if pid != os.getpid() and _is_server(pid))


def ranks() -> list[int]:
    """Return the server's ranks: SGLang names their processes."""
    return [pid for pid in server_processes() if _title(pid).startswith("sglang::scheduler")]


def chat(port: int, model: str) -> tuple[float, str]:
    """Ask the server one thing; return the seconds it took, and the answer."""
    body = {"messages": [{"role": "user", "content": "Say hi."}], "max_tokens": 16, "temperature": 0}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        json.dumps({"model": model, **body}).encode(),
        {"Content-Type": "application/json"},
    )
    began = time.monotonic()
    with urllib.request.urlopen(request, timeout=200) as answer:
        message = json.load(answer)["choices"][0]["message"]
    return time.monotonic() - began, str(message.get("content") or message.get("reasoning_content"))


def answers(port: int) -> bool:
    """Say whether a server is ready."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=25) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _is_server(pid: int) -> bool:
    title = _title(pid)
    if title.startswith("sglang::") or " -m sglang.launch_server" in title:
        return True
    return "BUNDLER_SERVER" in (_environment(pid) or {})


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _environment(pid: int) -> dict[str, str] | None:
    """Return a process's variables; ``None``: it has ended, or its title lies over them."""
    try:
        text = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return None
    found = dict(line.split("=", 1) for line in text.split("\0") if "=" in line)
    return found if "PATH" in found else None
