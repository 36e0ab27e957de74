"""What bundler says to SGLang: each flag, to the real parser; each variable, to what reads it."""

from __future__ import annotations

import json
import mmap
import re
import subprocess
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bundler.collect.models.specs import load_spec
from bundler.host.facts import HostFacts
from bundler.host.gpu import Gpu
from bundler.model import ModelFacts
from bundler.serve.launch import Served, ServerLaunch, Software, Wishes, build
from bundler.stack import Stack
from tests.real.closure import ENVIRONMENT, REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator

CAPABILITIES = ("8.0", "8.9", "9.0", "10.0")
"""One of each GPU family: ampere, ada, hopper, blackwell."""
SGLANG = "0.5.7"
READ_ELSEWHERE = {
    "CUDA_CACHE_PATH": "the driver's libcuda.so.1, which no wheel brings",
    "PYTHONSAFEPATH": "Python itself",
    "LD_LIBRARY_PATH": "the loader",
}
OWNERS = {
    "HF_": ("huggingface_hub",),
    "TRANSFORMERS_": ("transformers", "huggingface_hub"),
    "TRITON_": ("triton",),
    "TORCHINDUCTOR_": ("torch/_inductor",),
    "TORCH_": ("torch/utils",),
    "GLOO_": ("torch/lib",),
    "NCCL_": ("nvidia/nccl",),
    "CUDA_HOME": ("deep_gemm", "tvm_ffi", "flashinfer"),
    "FLASHINFER_": ("flashinfer",),
    "TVM_FFI_": ("tvm_ffi",),
    "SGLANG_": ("sglang/srt",),
    "OUTLINES_": ("outlines",),
}
"""Whose variables they are, by how they begin: the packages below site-packages that must read them."""

PARSE = """
import argparse, json, sys
from sglang.srt.server_args import ServerArgs
refused = []
for words in json.load(sys.stdin):
    parser = argparse.ArgumentParser(exit_on_error=False)
    ServerArgs.add_cli_args(parser)
    try:
        unknown = parser.parse_known_args(words)[1]
        if unknown:
            refused.append(f"unknown: {unknown}")
    except (argparse.ArgumentError, SystemExit) as problem:
        refused.append(f"{problem}: {' '.join(words)}")
print("REFUSED " + json.dumps(refused))
"""


@cache
def launches(prefix: Path) -> tuple[ServerLaunch, ...]:
    """Return the launch of each manifest, on one node and on two, on each family of GPUs."""
    return tuple(
        _launch(manifest, prefix, capability, wishes)
        for manifest in sorted((REPOSITORY / "manifests").glob("*.toml"))
        for capability in CAPABILITIES
        for wishes in (
            Wishes(),
            Wishes(
                tp_size=16, nnodes=2, node_rank=1, dist_init_addr="127.0.0.1:20000", key_file=Path("/key")
            ),
        )
    )


def _launch(manifest: Path, prefix: Path, capability: str, wishes: Wishes) -> ServerLaunch:
    spec = msgspec.structs.replace(load_spec(manifest), name=manifest.stem)
    gpus = tuple(Gpu(index=index, compute_capability=capability) for index in range(8))
    served = Served(
        root=prefix,
        spec=spec,
        facts=ModelFacts(attention_heads=96, kv_heads=8, vision=spec.smoke.image),
        weights=prefix / "weights",
        software=Software(ENVIRONMENT, prefix, prefix / "bin" / "python", Stack(sglang=SGLANG)),
        caches=prefix / "cache",
    )
    host = HostFacts(gpus=gpus, libraries={"libcuda.so.1": "/usr/lib/libcuda.so.1"})
    base = {"PATH": "/usr/bin", "LD_LIBRARY_PATH": "/usr/lib"}
    return build(served, wishes, host, base, base)


def refused_launches(prefix: Path) -> list[str]:
    """Return what the environment's own parser refuses, with its words."""
    words = [launch.argv[3:] for launch in launches(prefix)]
    done = subprocess.run(
        [prefix / "bin" / "python", "-c", PARSE],
        input=json.dumps(words),
        capture_output=True,
        text=True,
        env={
            "PATH": "/usr/bin:/bin",
            "HF_HUB_OFFLINE": "1",
            "CUDA_HOME": str(prefix),
            "HOME": "/nonexistent",
        },
        check=False,
    )
    line = next((one for one in done.stdout.splitlines() if one.startswith("REFUSED ")), None)
    if line is None:
        return [f"the parser didn't get to its end: {done.stderr[-2000:]}"]
    found: list[str] = json.loads(line.removeprefix("REFUSED "))
    return found


def readers(prefix: Path) -> dict[str, list[str]]:
    """Return for each variable that bundler sets up to two files of its owner that name it."""
    wanted = sorted({name for launch in launches(prefix) for name in launch.added})
    site = next(prefix.glob("lib/python3.*/site-packages"))
    return {
        name: [READ_ELSEWHERE[name]] if name in READ_ELSEWHERE else list(islice(_readers_of(name, site), 2))
        for name in wanted
    }


def _readers_of(name: str, site: Path) -> Iterator[str]:
    whole = re.compile(rb"(?<![A-Za-z0-9_])" + name.encode() + rb"(?![A-Za-z0-9_])")
    owners = next((some for start, some in OWNERS.items() if name.startswith(start)), ())
    for owner in owners:
        for path in sorted((site / owner).rglob("*")):
            if (path.suffix == ".py" or ".so" in path.suffixes) and _holds(path, whole):
                yield path.relative_to(site).as_posix()


def _holds(path: Path, pattern: re.Pattern[bytes]) -> bool:
    if not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return pattern.search(content) is not None
