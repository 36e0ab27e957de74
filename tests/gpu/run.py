"""The GPU host, end to end, on real GPUs: carry a bundle there, run this, read what it prints.

    python3 -m tests.gpu.run --home HOME [--work DIR] [--only PART,…] [--tp-size N] [-- SGLANG FLAGS]
    python3 -m tests.gpu.run --bundle DIR --python PYTHON [--overlay FILE.tar.xz] [--wheels DIR] […]

Run in a checkout's root; nothing is fetched. With ``--home``: an installation that ``tests.gpu.bring`` or
``bundler unpack`` made of a bundle with an environment. With ``--bundle``: a bundle with a small model alone,
an interpreter with PyTorch, and SGLang either in that interpreter or in an overlay, a tar of packages that
comes first on PYTHONPATH.

Bringing it along, where a checkout travels without what git ignores: put bundle, overlay and wheels into
folders of the checkout, name these in ``.git/info/exclude``, and have them carried by name, e.g.

    echo /.carry/ >> .git/info/exclude
    mkdir -p .carry/wheels
    cp tests/gpu/tiny.toml .carry/                       # beside the model's folder, .carry/tiny
    bundler pack --model .carry/tiny.toml -o .carry/bundle
    cp OVERLAY.tar.xz .carry/
    pip wheel --no-deps -w .carry/wheels .               # bundler itself; left out, the checkout is used
    pip download --no-deps --only-binary=:all: --python-version 3.12 -d .carry/wheels blake3 zstandard …

The wheels are those of bundler's own needs that the host lacks; py-rattler, uv and the hubs' clients aren't
used here. With SGLang 0.5.17 from an overlay, whose kernels are cut down, add:
``-- --attention-backend triton --grammar-backend none --disable-cuda-graph``.

All parts together start the server many times, about a minute each. Where a command may take ten minutes
only, run them in turns, by ``--only`` with the same ``--work``: times and outcomes are kept there, and each
run ends with one table of all.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.gpu.machine import (
    NO_MULTICAST,
    SkipError,
    StepError,
    answers,
    chat,
    gpu_memory,
    multicast_is_off,
    nothing_left,
    ranks,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parents[2]
START_SECONDS = 240
WARNED = 15
"""doctor's exit code where nothing fails and something is warned of."""


class Run:
    """One run of parts: each public method is one."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self._work: Path = options.work
        self._home: Path = options.home or self._work / "installation"
        self._out: Path = options.out or self._work
        self.seconds: dict[str, float] = {}
        self._environment = {**os.environ, **NO_MULTICAST}
        self._command = [str(self._home / "bin" / "bundler")]
        self._python: tuple[str, ...] = ()
        self._work.mkdir(parents=True, exist_ok=True)
        if options.bundle:
            self._prepare()

    def _prepare(self) -> None:
        """Unpack the overlay and install the wheels, both below the work folder."""
        self._command = [sys.executable, "-m", "bundler"]
        self._python = ("--python", self.options.python, "--keep-env", "PYTHONPATH")
        paths = []
        if self.options.overlay:
            overlay = self._work / "overlay"
            if not overlay.exists():
                with tarfile.open(self.options.overlay) as tar:
                    tar.extractall(overlay, filter="tar")
            paths.append(overlay)
        wheels = sorted(self.options.wheels.glob("*.whl")) if self.options.wheels else []
        if wheels:
            site = self._work / "site"
            pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-cache-dir"]
            subprocess.run([*pip, "--upgrade", "--target", site, *wheels], check=True)
            paths.append(site)
        if not any(wheel.name.startswith("bundler-") for wheel in wheels):
            paths.append(REPOSITORY)
        before = self._environment.get("PYTHONPATH")
        self._environment["PYTHONPATH"] = os.pathsep.join([*map(str, paths), *([before] if before else [])])

    def carry(self) -> None:
        """Verify, unpack, doctor with a target's description."""
        if not self.options.bundle:
            raise SkipError("there is no --bundle")
        shutil.rmtree(self._home, ignore_errors=True)
        self._bundler("verify", str(self.options.bundle))
        self._bundler("unpack", str(self.options.bundle), str(self._home))
        target = self._work / "target.json"
        target.write_text(self._bundler("doctor", "--describe").stdout)
        words = ("doctor", "--bundle", str(self.options.bundle), "--target", str(target))
        self._bundler(*words, codes=(0, WARNED))

    def check(self) -> None:
        """Imports, a Triton kernel, an all-reduce."""
        self._bundler("check", "-C", str(self._home), *self._python[:2], name="check")

    def doctor(self) -> None:
        """What it says of this host; the dry run."""
        words = ("doctor", "-C", str(self._home), *self._python[:2], *self._sized())
        self._bundler(*words, codes=(0, WARNED), name="doctor")
        self._bundler(*self._serve("--dry-run"))

    def first(self) -> None:
        """The first start: kernels are compiled."""
        shutil.rmtree(self._home / ".bundler" / "cache", ignore_errors=True)
        self._served("first")

    def second(self) -> None:
        """The second start: kernels come from the caches."""
        self._served("second")

    def hand(self) -> None:
        """The printed command by hand, with empty caches of its own."""
        shutil.rmtree(self._own_caches, ignore_errors=True)
        self._by_hand("hand")

    def hand_again(self) -> None:
        """The printed command by hand, with the caches of the part before."""
        self._by_hand("hand again")

    def port(self) -> None:
        """A port that something else holds."""
        with socket.create_server(("127.0.0.1", self.options.port)):
            self._bundler(*self._serve("--detach"), codes=(12,), says=("is taken", "--port"))

    def tp(self) -> None:
        """A tp-size beyond the GPUs."""
        size = 2 * max(1, len(gpu_memory()))
        self._bundler(*self._serve("--detach", tp_size=size), codes=(12,), says=(f"for tp-size {size}",))

    def flag(self) -> None:
        """A flag that SGLang doesn't know."""
        self._fails("--bogus-flag", "7", says=("--bogus-flag",))

    def memory(self) -> None:
        """Weights and cache that don't fit into the share of memory they get."""
        self._fails("--mem-fraction-static", "0.0001", says=("mem-fraction-static",))

    def shm(self) -> None:
        """A full /dev/shm: found before the start where ranks need it."""
        # A small one of its own: the host's own may be as large as its memory, which filling it would take.
        full = "mount -t tmpfs -o size=2M tmpfs /dev/shm && head -c 1M /dev/zero > /dev/shm/filler"
        tried = subprocess.run(["unshare", "-m", "sh", "-c", full], capture_output=True, text=True)
        if tried.returncode:
            raise SkipError(f"nothing can be mounted: {tried.stderr.strip()}")
        several = (self.options.tp_size or 1) > 1
        self._bundler(
            *("doctor", "-C", str(self._home), *self._python[:2], *self._sized()),
            before=("unshare", "-m", "sh", "-c", f'{full} && exec "$@"', "sh"),
            codes=(12,) if several else (0, 12, WARNED),
            says=("/dev/shm",),
        )

    def libcuda(self) -> None:
        """No libcuda: one finding that says so."""
        paths = [path for path in Path("/usr").rglob("libcuda.so.1") if path.exists()]
        hide = "; ".join(f"mount --bind /dev/null {path}" for path in paths)
        tried = subprocess.run(["unshare", "-m", "sh", "-c", hide], capture_output=True, text=True)
        if tried.returncode or not paths:
            raise SkipError(f"it can't be hidden: {tried.stderr.strip() or 'it lies elsewhere'}")
        words = ("unshare", "-m", "sh", "-c", f'{hide}; exec "$@"', "sh")
        self._bundler(*self._serve("--detach"), before=words, codes=(12, 13), says=("libcuda",))

    def compiler(self) -> None:
        """No C compiler in reach, nothing compiled yet: said before the start."""
        tools = self._work / "tools"
        shutil.rmtree(tools, ignore_errors=True)
        tools.mkdir()
        hidden = ("gcc", "cc", "clang", "c99", "x86_64-linux-gnu-gcc", "nvcc")
        for path in [*Path("/bin").iterdir(), *Path("/usr/bin").iterdir()]:
            if not path.name.startswith(hidden):
                with suppress(FileExistsError):
                    (tools / path.name).symlink_to(path)
        shutil.rmtree(self._home / ".bundler" / "cache", ignore_errors=True)
        words = ("doctor", "-C", str(self._home), *self._python[:2])
        shown = self._bundler(*words, variables={"PATH": str(tools)}, codes=(0, 12, WARNED)).stdout
        if "compiler" not in shown:
            raise StepError("doctor doesn't name the compiler")

    def child(self) -> None:
        """A rank killed while the server loads."""
        before = gpu_memory()
        process = self._started(*self._serve("--detach"))
        self._wait_for_ranks(process)
        killed = self._kill_a_rank()
        output, _ = process.communicate(timeout=START_SECONDS)
        print(f"{output}[exit {process.returncode}, {time.monotonic() - killed:.1f} s after the kill]")
        if process.returncode != 13:
            raise StepError(f"exit code {process.returncode}, wanted 13")
        nothing_left(before)

    def serving(self) -> None:
        """A rank killed while the server serves."""
        before = gpu_memory()
        self._bundler(*self._serve("--detach"))
        self._kill_a_rank()
        # Whether SGLang ends by itself or stays as a shell that answers nothing: status tells.
        time.sleep(5)
        self._bundler("status", "-C", str(self._home), codes=(13, 14))
        self._bundler("stop", "-C", str(self._home))
        nothing_left(before)

    def terminal(self) -> None:
        """The terminal of a foreground serve is closed while it serves."""
        before = gpu_memory()
        pid, terminal = pty.fork()
        if pid == 0:
            os.execve(self._command[0], [*self._command, *self._serve()], self._environment)
        deadline = time.monotonic() + START_SECONDS
        while not answers(self.options.port) and time.monotonic() < deadline:
            with suppress(OSError):
                os.set_blocking(terminal, False)
                os.read(terminal, 65536)
            time.sleep(0.2)
        if not ranks():
            raise StepError("the server didn't come up")
        os.close(terminal)
        began = time.monotonic()
        os.waitpid(pid, 0)
        print(f"ended {time.monotonic() - began:.1f} s after its terminal")
        nothing_left(before)

    def pipe(self) -> None:
        """A foreground serve whose reader goes after four lines, while it loads; it is told to end then."""
        before = gpu_memory()
        process = self._started(*self._serve())
        assert process.stdout is not None
        for _ in range(4):
            print(process.stdout.readline(), end="")
        self._wait_for_ranks(process)
        process.stdout.close()
        # Unheard it goes on, and the server stays its own: ended with it.
        process.terminate()
        print(f"[exit {process.wait(START_SECONDS)}]")
        nothing_left(before)

    def subset(self) -> None:
        """CUDA_VISIBLE_DEVICES names the last GPU alone: the others stay empty."""
        before = gpu_memory()
        if len(before) < 2:
            raise SkipError("there is one GPU")
        chosen = {"CUDA_VISIBLE_DEVICES": str(len(before) - 1)}
        self._bundler(*self._serve("--detach", tp_size=1), variables=chosen)
        grown = [now - first for now, first in zip(gpu_memory(), before, strict=True)]
        print(f"GPU memory grown by, MiB: {grown}")
        self._bundler("stop", "-C", str(self._home))
        if any(one > 1000 for one in grown[:-1]) or grown[-1] < 1000:
            raise StepError("another GPU was used")
        nothing_left(before)

    def nodes(self) -> None:
        """Two nodes of half the GPUs each, both on this host."""
        before = gpu_memory()
        half = len(before) // 2
        if not half:
            raise SkipError("there is one GPU")
        address = f"{socket.gethostbyname(socket.gethostname())}:29600"
        both = []
        for rank in range(2):
            chosen = ",".join(map(str, range(rank * half, (rank + 1) * half)))
            words = ("--nnodes", "2", "--node-rank", str(rank), "--dist-init-addr", address)
            port = self.options.port + 10 * rank
            both.append(
                self._started(
                    *self._serve("--detach", *words, tp_size=2 * half, port=port),
                    variables={"CUDA_VISIBLE_DEVICES": chosen},
                )
            )
        for rank, process in enumerate(both):
            output, _ = process.communicate(timeout=2 * START_SECONDS)
            print(f"node {rank}: {output}[exit {process.returncode}]", flush=True)
        if not any(process.returncode for process in both):
            spent, said = chat(self.options.port, self.options.model)
            print(f"chat over both nodes: {spent:.2f} s: {said!r}")
        self._bundler("stop", "-C", str(self._home), "--all")
        if any(process.returncode for process in both):
            raise StepError("a node failed")
        nothing_left(before)

    def unit(self) -> None:
        """The systemd unit, started and stopped, where systemd runs."""
        if not Path("/run/systemd/system").is_dir():
            raise SkipError("systemd doesn't run here")
        before = gpu_memory()
        shown = self._bundler("systemd", "-C", str(self._home), "--port", str(self.options.port)).stdout
        Path("/run/systemd/system/bundler-trial.service").write_text(shown)
        for words in (("daemon-reload",), ("start", "bundler-trial"), ("stop", "bundler-trial")):
            subprocess.run(["systemctl", *words], check=True, timeout=START_SECONDS)
        nothing_left(before)

    def truncated(self) -> None:
        """A weight file that lost its end: found by the quick check."""
        path = self._weights()
        with kept(path):
            os.truncate(path, path.stat().st_size - 1000)
            self._bundler(*self._serve("--detach"), codes=(12,), says=("truncated", path.name))

    def flipped(self) -> None:
        """A weight file with one bit flipped: found by ``--deep``."""
        path = self._weights()
        words = ("doctor", "-C", str(self._home), *self._python[:2])
        with kept(path):
            status = path.stat()
            with path.open("r+b") as file:
                file.seek(status.st_size - 100)
                byte = file.read(1)[0]
                file.seek(status.st_size - 100)
                file.write(bytes([byte ^ 1]))
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
            self._bundler(*words, codes=(0, WARNED))
            self._bundler(*words, "--deep", codes=(12,), says=("sha256 differs", path.name))

    def stop_all(self) -> None:
        """End what a part that failed left."""
        words = [*self._command, "stop", "-C", str(self._home), "--all", "--grace", "5"]
        subprocess.run(words, env=self._environment, capture_output=True, check=False)

    def _bundler(
        self,
        *words: str,
        codes: tuple[int, ...] = (0,),
        says: tuple[str, ...] = (),
        name: str = "",
        before: tuple[str, ...] = (),
        variables: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run bundler, show it, keep its time under a name, and compare exit code and words.

        :raises StepError: another exit code, or a word that wasn't said.
        """
        print(f"\n$ {' '.join(before)} bundler {' '.join(words)}", flush=True)
        began = time.monotonic()
        done = subprocess.run(
            [*before, *self._command, *words],
            env=self._environment | (variables or {}),
            cwd=self._work,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=2 * START_SECONDS,
        )
        spent = time.monotonic() - began
        if name:
            self.seconds[name] = round(spent, 1)
        print(f"{done.stdout}[exit {done.returncode}, {spent:.1f} s]", flush=True)
        if done.returncode not in codes:
            raise StepError(f"exit code {done.returncode}, wanted {codes}")
        missing = [word for word in says if word not in done.stdout]
        if missing:
            raise StepError(f"it didn't say: {missing}")
        return done

    def _started(self, *words: str, variables: dict[str, str] | None = None) -> subprocess.Popen[str]:
        """Start bundler in the background, its output to be read."""
        print(f"\n$ bundler {' '.join(words)} &", flush=True)
        return subprocess.Popen(
            [*self._command, *words],
            env=self._environment | (variables or {}),
            cwd=self._work,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def _sized(self, tp_size: int | None = None) -> tuple[str, ...]:
        size = tp_size or self.options.tp_size
        return ("--tp-size", str(size)) if size else ()

    def _serve(
        self, *words: str, tp_size: int | None = None, port: int | None = None, flags: tuple[str, ...] = ()
    ) -> tuple[str, ...]:
        """Return the words that serve."""
        base = ("serve", "-C", str(self._home), *self._python, "--host", "127.0.0.1")
        limits = ("--port", str(port or self.options.port), "--timeout", str(START_SECONDS))
        return (*base, *limits, *self._sized(tp_size), *words, "--", *self.options.flags, *flags)

    def _served(self, name: str) -> None:
        """Serve, ask, look, stop.

        :raises StepError: a step failed, or something is left.
        """
        before = gpu_memory()
        home = ("-C", str(self._home))
        try:
            self._bundler(*self._serve("--detach"), says=("ready after",), name=f"{name}: ready")
            multicast_is_off()
            self._chats(name)
            self._bundler("smoke", *home, name=f"{name}: smoke")
            status = json.loads(self._bundler("status", *home, "--json").stdout)
            if status["servers"][0]["health"] != "ready":
                raise StepError("status doesn't say ready")
            print(f"GPU memory in use, MiB: {gpu_memory()}")
        finally:
            log = subprocess.run([*self._command, "logs", "-n", "1000000", *home], capture_output=True)
            (self._out / f"{name}.log").write_bytes(log.stdout + log.stderr)
            self._bundler("stop", *home, codes=(0, 14), name=f"{name}: stop")
        self._bundler("status", *home, codes=(14,))
        nothing_left(before)

    def _chats(self, name: str) -> None:
        """Ask twice, and time the answers."""
        for which in ("first chat", "second chat"):
            spent, said = chat(self.options.port, self.options.model)
            self.seconds[f"{name}: {which}"] = round(spent, 2)
            print(f"{which}: {spent:.2f} s: {said!r}", flush=True)

    @property
    def _own_caches(self) -> Path:
        return self._work / "hand-caches"

    def _by_hand(self, name: str) -> None:
        """Start the printed command, chat, end it.

        :raises StepError: it isn't ready in time.
        """
        before = gpu_memory()
        words = [*self._command, *self._serve("--dry-run")]
        shown = subprocess.run(
            words, env=self._environment, cwd=self._work, stdout=subprocess.PIPE, text=True, check=True
        ).stdout
        caches = self._home / ".bundler" / "cache"
        if (caches / "libcuda").exists():
            own = self._own_caches / "libcuda"
            shutil.rmtree(own, ignore_errors=True)
            shutil.copytree(caches / "libcuda", own, symlinks=True, dirs_exist_ok=True)
        began = time.monotonic()
        with (self._out / f"{name.replace(' ', '-')}.log").open("w") as log:
            process = subprocess.Popen(
                ["sh", "-c", f"exec {shown.replace(str(caches), str(self._own_caches))}"],
                env=self._environment,
                cwd="/",
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                while not answers(self.options.port):
                    if process.poll() is not None or time.monotonic() - began > START_SECONDS:
                        raise StepError(f"by hand it isn't ready (exit {process.poll()}): {log.name}")
                    time.sleep(0.2)
                self.seconds[f"{name}: ready"] = round(time.monotonic() - began, 1)
                self._chats(name)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        nothing_left(before)

    def _fails(self, *flags: str, says: tuple[str, ...]) -> None:
        """Start with flags that can't do; the cause must be said, and nothing be left."""
        before = gpu_memory()
        self._bundler(*self._serve("--detach", flags=flags), codes=(2, 12, 13), says=says)
        nothing_left(before)

    def _wait_for_ranks(self, process: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not ranks() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.5)

    def _kill_a_rank(self) -> float:
        """Kill the first rank; return when."""
        for pid in ranks()[:1]:
            os.kill(pid, signal.SIGKILL)
            print(f"killed rank {pid}", flush=True)
        return time.monotonic()

    def _weights(self) -> Path:
        """Return a weight file."""
        return sorted(self._home.glob("weights/*/*.safetensors"))[0]


@contextmanager
def kept(path: Path) -> Iterator[None]:
    """Put a file back as it was."""
    copy = path.with_name(path.name + ".kept")
    # A copy, not a link: the file is changed in place.
    shutil.copy2(path, copy)
    try:
        yield
    finally:
        copy.replace(path)


PARTS = tuple(name for name in vars(Run) if not name.startswith("_") and name != "stop_all")


def attempt(run: Run, part: str) -> str:
    """Run one part; return how it ended."""
    method = getattr(run, part)
    print(f"\n===== {part}: {method.__doc__.splitlines()[0]}", flush=True)
    began = time.monotonic()
    try:
        method()
        outcome = "ok"
    except SkipError as reason:
        outcome = f"skipped: {reason}"
    except (StepError, OSError, subprocess.SubprocessError, ValueError, LookupError) as problem:
        outcome = f"FAILED: {type(problem).__name__}: {problem}"
        run.stop_all()
    print(f"===== {part}: {outcome} ({time.monotonic() - began:.0f} s)", flush=True)
    return outcome


def parse(words: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--home", type=lambda text: Path(text).absolute())
    where.add_argument("--bundle", type=lambda text: Path(text).absolute())
    parser.add_argument("--overlay", type=lambda text: Path(text).absolute())
    parser.add_argument("--wheels", type=lambda text: Path(text).absolute())
    parser.add_argument("--python", default="python3")
    parser.add_argument("--work", type=lambda text: Path(text).absolute(), default=Path("/tmp/bundler-gpu"))
    parser.add_argument("--out", type=lambda text: Path(text).absolute(), help="for logs; else --work")
    parser.add_argument("--only", default=",".join(PARTS), help=f"of: {', '.join(PARTS)}")
    parser.add_argument("--port", type=int, default=30000)
    parser.add_argument("--tp-size", type=int)
    parser.add_argument("--model", default="tiny-glm4-moe", help="the name that the server goes by")
    cut = words.index("--") if "--" in words else len(words)
    options = parser.parse_args(words[:cut])
    options.flags = words[cut + 1 :]
    unknown = set(options.only.split(",")) - set(PARTS)
    if unknown:
        parser.error(f"no part {', '.join(sorted(unknown))}; there are: {', '.join(PARTS)}")
    return options


def main(words: list[str]) -> int:
    """Run the parts in their order; go on after one that fails; show one table of these and earlier runs."""
    options = parse(words)
    run = Run(options)
    key = f"tp-size {options.tp_size or 'of the manifest'}"
    path = options.work / "table.json"
    table = json.loads(path.read_text()) if path.exists() else {}
    table.setdefault(key, {"outcome": {}, "seconds": {}})
    now = [part for part in PARTS if part in options.only.split(",")]
    for part in now:
        table[key]["outcome"][part] = attempt(run, part)
        table[key]["seconds"] |= run.seconds
        path.write_text(json.dumps(table, indent=1))
    for size, rows in table.items():
        print(f"\n===== {size}")
        print("\n".join(f"  {name:26}{spent:8.2f} s" for name, spent in rows["seconds"].items()))
        print("\n".join(f"  {name:26}{said}" for name, said in rows["outcome"].items()))
    return int(any(table[key]["outcome"][part].startswith("FAILED") for part in now))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
