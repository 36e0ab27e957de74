"""An installation on the disk, stand-ins for SGLang and NVML, and bundler's own command line as a process."""

import hashlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from bundler import manifest as manifests
from bundler.installation import BUNDLES, Receipt, SeenFile, UnpackedBundle, write_receipt
from bundler.model import Launch, ModelFacts, ModelSpec, Smoke

STANDIN = Path(__file__).parent / "standin"

SPEC = ModelSpec(
    name="Tiny",
    aliases=("tiny",),
    served_name="tiny-served",
    launch=Launch(
        flags={"tool-call-parser": "glm47", "reasoning-parser": "glm45", "trust-remote-code": True},
    ),
    smoke=Smoke(tools=True, reasoning=True, image=True),
)
FACTS = ModelFacts(weight_bytes=4096, attention_heads=8, kv_heads=8, kv_bytes_per_token=64)


def safetensors(elements: int = 512) -> bytes:
    """Return a small safetensors file."""
    header = json.dumps(
        {"w": {"dtype": "F32", "shape": [elements], "data_offsets": [0, 4 * elements]}}
    ).encode()
    return struct.pack("<Q", len(header)) + header + os.urandom(4 * elements)


def make_installation(
    root: Path,
    spec: ModelSpec = SPEC,
    facts: ModelFacts = FACTS,
    environments: tuple[manifests.Environment, ...] = (),
) -> Path:
    """Write what unpack would have left of a bundle with a model alone."""
    folder = root / "weights" / spec.name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    for number in (1, 2):
        (folder / f"model-{number:05}-of-00002.safetensors").write_bytes(safetensors())
    manifest = manifests.Manifest(
        name="tiny",
        writer=manifests.Writer(bundler="0", libzstd="0"),
        environments=environments,
        models=(manifests.Model(spec=spec, path=f"weights/{spec.name}", origin="folder", facts=facts),),
    )
    data = manifests.encode(manifest)
    digest = hashlib.sha256(data).hexdigest()
    (root / BUNDLES).mkdir(parents=True)
    (root / BUNDLES / f"{digest}.json").write_bytes(data)
    files = tuple(
        SeenFile(
            path.relative_to(root).as_posix(),
            path.stat().st_size,
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in sorted(folder.iterdir())
    )
    bundle = UnpackedBundle(name="tiny", manifest_sha256=digest, bundler="0", finished="", checked="")
    write_receipt(root, Receipt(bundles=(bundle,), files=files))
    return root


def gpu(index: int, **changes: object) -> dict[str, object]:
    """Describe an H100 for the stand-in of NVML."""
    facts = {
        "uuid": f"GPU-{index}{index}{index}",
        "name": "NVIDIA H100 80GB HBM3",
        "memory": 85_000_000_000,
        "free": 84_000_000_000,
        "capability": [9, 0],
        "nvlinks": 18,
    }
    return facts | changes


def free_port() -> int:
    """Return a port that was free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Bench:
    """A host with GPUs played, an interpreter with SGLang played, and an installation."""

    root: Path
    tmp: Path
    port: int
    env: dict[str, str] = field(default_factory=dict)

    @property
    def python(self) -> str:
        return str(self.tmp / "bin" / "python3")

    def gpus(self, *gpus: dict[str, object]) -> None:
        """Say which GPUs the host has."""
        facts = {"driver": "580.159.04", "cuda": 13000, "gpus": list(gpus)}
        (self.tmp / "gpus.json").write_text(json.dumps(facts))

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "bundler", *words]

    def run(self, *words: str, timeout: float = 60, **env: str) -> subprocess.CompletedProcess[str]:
        """Run bundler in the installation."""
        return subprocess.run(
            self.command(*words),
            cwd=self.root,
            env=self.env | env,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def popen(self, *words: str, cwd: Path | None = None, **env: str) -> "subprocess.Popen[str]":
        """Start bundler in the installation."""
        return subprocess.Popen(
            self.command(*words),
            cwd=cwd or self.root,
            env=self.env | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def serve(self, *words: str) -> tuple[str, ...]:
        """Return the words that serve from the stand-in."""
        return ("serve", "--python", self.python, "--host", "127.0.0.1", "--port", str(self.port), *words)

    def processes(self) -> list[int]:
        """Return the pids of the stand-in's processes, found by a variable that is this test's own."""
        wanted = f"STANDIN_HOME={self.tmp}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            try:
                inherited = wanted in (entry / "environ").read_bytes().split(b"\0")
                if inherited and (entry / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                    found.append(int(entry.name))
            except (OSError, ValueError):
                continue
        return found

    def record(self) -> dict[str, object]:
        """Return what the stand-in was started with."""
        return dict(msgspec.json.decode((self.tmp / "record.json").read_bytes()))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    tmp = tmp_path / "host"
    (tmp / "bin").mkdir(parents=True)
    (tmp / "lib").mkdir()
    for library in ("libcuda.so.1", "libnuma.so.1"):
        # The header of a library for x86_64, which is all that is looked at.
        (tmp / "lib" / library).write_bytes(struct.pack("<16s2H44x", b"\x7fELF\x02\x01\x01", 3, 62))
    site = tmp / "site"
    (site / "sglang").mkdir(parents=True)
    (site / "sglang" / "__init__.py").touch()
    shutil.copy(STANDIN / "launch_server.py", site / "sglang")
    info = site / "sglang-0.5.7.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sglang\nVersion: 0.5.7\n")
    nvml = tmp / "nvml"
    nvml.mkdir()
    shutil.copy(STANDIN / "pynvml.py", nvml)
    python = tmp / "bin" / "python3"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={site} exec {sys.executable} "$@"\n')
    for program in ("nvidia-smi", "ldconfig", "gcc"):
        (tmp / "bin" / program).write_text("#!/bin/sh\nexit 0\n")
        (tmp / "bin" / program).chmod(0o755)
    python.chmod(0o755)
    bench = Bench(make_installation(tmp_path / "installation"), tmp, free_port())
    bench.env = {
        "PATH": f"{tmp}/bin:{os.environ['PATH']}",
        "HOME": str(tmp),
        "PYTHONPATH": os.pathsep.join([str(nvml), str(Path(__file__).parents[2])]),
        "LD_LIBRARY_PATH": f"{tmp}/lib",
        "STANDIN_GPUS": f"{tmp}/gpus.json",
        "STANDIN_RECORD": f"{tmp}/record.json",
        "STANDIN_HOME": str(tmp),
    }
    bench.gpus(gpu(0))
    yield bench
    # Nothing that a failing test left may outlive it.
    for pid in bench.processes():
        os.kill(pid, 9)
