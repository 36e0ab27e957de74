"""On a GPU host: all that runs from an installation of the small bundle, in one go, with times and logs.

    python3 tests/real/on_gpu.py bring --home HOME FOLDER…
    python3 tests/real/on_gpu.py try --home HOME --out OUT [--tp-size 2] [--only PART,…] [-- SGLANG FLAGS]

``bring`` takes a folder with install.sh and runtime.tar.gz first, then folders with a volume or several, in
any order, each with the bundle's small files beside it; with the last volume it installs. ``try`` runs the
parts: ``check``; ``doctor``; ``first`` and ``second`` (serve, chat, smoke, status, stop); ``hand`` and
``hand-again`` (the command that ``serve --dry-run`` prints, with caches of its own: what bundler adds to a
start is the difference). Needs Python 3.10, nothing else, and no network. NVLink multicast stays off: the
variables that say so are looked for in the server's processes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

NO_MULTICAST = {
    "NCCL_NVLS_ENABLE": "0",
    "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1",
    "NVSHMEM_DISABLE_NVLS": "1",
}
PARTS = ("check", "doctor", "first", "second", "hand", "hand-again")
PORT = 30000
START_SECONDS = 240
FREED = 300
"""MiB by which a GPU's memory may differ from before."""
FOUND_WARNINGS = 15
WAITS = 7
"""unpack's exit code where more volumes are to come."""


class PartError(Exception):
    """A part went otherwise than it should."""


def bring(home: Path, folder: Path) -> int:
    """Take what a carried folder holds: the runtime, or volumes.

    :returns: 0, or the exit code of what failed.
    """
    bundler = home / "bin" / "bundler"
    if (folder / "runtime.tar.gz").exists() and not bundler.exists():
        subprocess.run(["sh", folder / "install.sh", "--runtime-only", home], check=True)
    if not list(folder.glob("data-*")):
        return 0
    began = time.monotonic()
    code = subprocess.run([bundler, "unpack", "--partial", folder, home], check=False).returncode
    print(f"[{folder.name}: exit {code}, {time.monotonic() - began:.1f} s]", flush=True)
    return 0 if code == WAITS else code


class Trial:
    """One run of the parts."""

    def __init__(self, home: Path, out: Path, tp_size: int, flags: list[str]) -> None:
        self.home, self.out, self.flags = home, out, flags
        self.bundler = str(home / "bin" / "bundler")
        self.served = ["-C", str(home), "--tp-size", str(tp_size), "--host", "127.0.0.1", "--port", str(PORT)]
        self.environment = {**os.environ, **NO_MULTICAST}
        self.seconds: dict[str, float] = {}
        self.before = memory()

    def run(self, *words: str, codes: tuple[int, ...] = (0,), name: str = "", timeout: float = 300) -> str:
        """Run bundler, show it, keep its time under a name.

        :raises PartError: another exit code.
        """
        print(f"\n$ bundler {' '.join(words)}", flush=True)
        began = time.monotonic()
        done = subprocess.run(
            [self.bundler, *words],
            env=self.environment,
            cwd="/",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
        spent = time.monotonic() - began
        if name:
            self.seconds[name] = round(spent, 1)
        print(f"{done.stdout}[exit {done.returncode}, {spent:.1f} s]", flush=True)
        if done.returncode not in codes:
            raise PartError(f"bundler {words[0]}: exit code {done.returncode}")
        return done.stdout

    def check(self) -> None:
        """Imports, a Triton kernel, NCCL's sum."""
        self.run("check", "-C", str(self.home), name="check")

    def doctor(self) -> None:
        """What it says of this host; the dry run."""
        self.run("doctor", *self.served, "--", *self.flags, codes=(0, FOUND_WARNINGS), name="doctor")
        self.run("serve", *self.served, "--dry-run", "--", *self.flags)

    def first(self) -> None:
        """The first start: caches empty, nothing compiled."""
        shutil.rmtree(self.home / ".bundler" / "cache", ignore_errors=True)
        self.serve("first")

    def second(self) -> None:
        """The second start: kernels and bytecode of the first."""
        self.serve("second")

    def serve(self, name: str) -> None:
        """Serve, chat, smoke, status, stop; nothing may be left.

        :raises PartError: a step failed.
        """
        words = ("serve", *self.served, "--detach", "--timeout", str(START_SECONDS), "--", *self.flags)
        try:
            self.run(*words, name=f"{name}: ready")
            self.multicast_is_off()
            self.chats(name)
            self.run("smoke", "-C", str(self.home), name=f"{name}: smoke")
            self.run("status", "-C", str(self.home), "--json")
            print(f"GPU memory in use, MiB: {memory()}")
        finally:
            log = subprocess.run(
                [self.bundler, "logs", "-n", "1000000", "-C", self.home], capture_output=True, text=True
            )
            (self.out / f"{name}.log").write_text(log.stdout + log.stderr)
            self.run("stop", "-C", str(self.home), codes=(0, 14), name=f"{name}: stop")
        self.nothing_left()

    def hand(self) -> None:
        """The printed command by hand, with empty caches of its own."""
        shutil.rmtree(self.own_caches, ignore_errors=True)
        self.by_hand("hand")

    def hand_again(self) -> None:
        """The printed command by hand, with the caches of the part before."""
        self.by_hand("hand-again")

    @property
    def own_caches(self) -> Path:
        return self.home.parent / "hand-caches"

    def by_hand(self, name: str) -> None:
        """Start the printed command, chat, end it.

        :raises PartError: it isn't ready in time.
        """
        words = [self.bundler, "serve", *self.served, "--dry-run", "--", *self.flags]
        done = subprocess.run(
            words, env=self.environment, cwd="/", stdout=subprocess.PIPE, text=True, check=True
        )
        caches = self.home / ".bundler" / "cache"
        if (caches / "libcuda").exists():
            shutil.copytree(
                caches / "libcuda", self.own_caches / "libcuda", symlinks=True, dirs_exist_ok=True
            )
        began = time.monotonic()
        with (self.out / f"{name}.log").open("w") as log:
            process = subprocess.Popen(
                ["sh", "-c", f"exec {done.stdout.replace(str(caches), str(self.own_caches))}"],
                env=self.environment,
                cwd="/",
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                while not answers():
                    if process.poll() is not None or time.monotonic() - began > START_SECONDS:
                        raise PartError(f"by hand it isn't ready (exit {process.poll()}): {name}.log")
                    time.sleep(0.2)
                self.seconds[f"{name}: ready"] = round(time.monotonic() - began, 1)
                self.chats(name)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self.nothing_left()

    def chats(self, name: str) -> None:
        """Ask twice and time the answers."""
        for which in ("first chat", "second chat"):
            began = time.monotonic()
            said = chat()
            self.seconds[f"{name}: {which}"] = round(time.monotonic() - began, 2)
            print(f"{which}: {self.seconds[f'{name}: {which}']} s: {said!r}", flush=True)

    def multicast_is_off(self) -> None:
        """Look for the variables in the server's processes.

        :raises PartError: one lacks them.
        """
        for pid in server_processes():
            variables = environment_of(pid)
            if variables is None:
                print(f"process {pid} {title(pid)[:40]}: its environment can't be read")
                continue
            lacking = [name for name, value in NO_MULTICAST.items() if variables.get(name) != value]
            said = f"lacks {', '.join(lacking)}" if lacking else "multicast off"
            print(f"process {pid} {title(pid)[:40]}: {said}")
            if lacking:
                raise PartError(f"process {pid} may use NVLink multicast: {', '.join(lacking)}")

    def nothing_left(self) -> None:
        """Compare the GPUs' memory with before, and look for processes.

        :raises PartError: something is left.
        """
        for _ in range(30):
            now, left = memory(), server_processes()
            if not left and all(after - first < FREED for first, after in zip(self.before, now, strict=True)):
                print(f"nothing left; GPU memory in use, MiB: {now}, before: {self.before}", flush=True)
                return
            time.sleep(1)
        raise PartError(f"left: processes {left}, GPU memory {now} MiB, before {self.before}")


def memory() -> list[int]:
    """Return the memory in use on each GPU, in MiB."""
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return [
        int(line) for line in subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()
    ]


def chat() -> str:
    """Ask the server one thing."""
    body = {"messages": [{"role": "user", "content": "Say hi."}], "max_tokens": 16, "temperature": 0}
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORT}/v1/chat/completions",
        json.dumps({"model": "tiny-glm4-moe", **body}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=200) as answer:
        choice = json.load(answer)["choices"][0]["message"]
    return str(choice.get("content") or choice.get("reasoning_content"))


def answers() -> bool:
    """Say whether the server is ready."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=25) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def server_processes() -> list[int]:
    """Return the processes of a server: by their titles, or by bundler's marker."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return sorted(pid for pid in pids if pid != os.getpid() and _is_server(pid))


def _is_server(pid: int) -> bool:
    words = title(pid)
    return words.startswith("sglang::") or "-m sglang.launch_server" in words or _marked(pid)


def _marked(pid: int) -> bool:
    return "BUNDLER_SERVER" in (environment_of(pid) or {})


def title(pid: int) -> str:
    """Return a process's command line, or the title it gave itself."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def environment_of(pid: int) -> dict[str, str] | None:
    """Return a process's variables; ``None``: it has ended, or its title lies over them."""
    try:
        text = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return None
    found = dict(line.split("=", 1) for line in text.split("\0") if "=" in line)
    return found if "PATH" in found else None


def attempt(trial: Trial, names: list[str]) -> int:
    """Run parts; go on after one that failed.

    :returns: the exit code.
    """
    outcome: dict[str, str] = {}
    for name in names:
        work = getattr(trial, name.replace("-", "_"))
        print(f"\n===== {name}: {work.__doc__.splitlines()[0]}", flush=True)
        try:
            work()
            outcome[name] = "ok"
        except (PartError, OSError, subprocess.SubprocessError, ValueError, KeyError) as problem:
            outcome[name] = f"FAILED: {type(problem).__name__}: {problem}"
        print(f"===== {name}: {outcome[name]}", flush=True)
        summary = {"outcome": outcome, "seconds": trial.seconds}
        (trial.out / "summary.json").write_text(json.dumps(summary, indent=1))
    print("\n" + "\n".join(f"  {name:26}{spent:8.2f} s" for name, spent in trial.seconds.items()))
    print("\n".join(f"  {name:26}{said}" for name, said in outcome.items()))
    return int(any(said != "ok" for said in outcome.values()))


def main(words: list[str]) -> int:
    """Read the command line."""
    cut = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    bringing = commands.add_parser("bring")
    trying = commands.add_parser("try")
    for one in (bringing, trying):
        one.add_argument("--home", type=lambda text: Path(text).absolute(), default=Path("/tmp/real"))
    bringing.add_argument("folders", type=lambda text: Path(text).absolute(), nargs="+")
    trying.add_argument("--out", type=lambda text: Path(text).absolute(), default=Path("/tmp/real-out"))
    trying.add_argument("--tp-size", type=int, default=1)
    trying.add_argument("--only", default=",".join(PARTS))
    chosen = parser.parse_args(words[:cut])
    if chosen.command == "bring":
        for folder in chosen.folders:
            if code := bring(chosen.home, folder):
                return code
        return 0
    chosen.out.mkdir(parents=True, exist_ok=True)
    trial = Trial(chosen.home, chosen.out, chosen.tp_size, words[cut + 1 :])
    return attempt(trial, [name for name in PARTS if name in chosen.only.split(",")])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
