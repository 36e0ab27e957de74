"""The smallest part of the real environment that serves a small GLM-4-MoE model on one kind of GPU.

    python -m tests.real --dir DIR
    python -m tests.real.small --dir DIR --output VOLUMES [--arch 90] [--volume-size 58MiB] [--level 12]

Takes the wheels that the first command fetched, leaves out what such a server doesn't load and the GPU code
of other GPUs, locks what remains and packs it: for a GPU host to which only little can be carried at a time.
There ``tests.gpu.bring`` takes it, and ``tests.gpu.run`` tries it. Wants gcc and binutils.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory

from bundler.common.units import size_text
from bundler.errors import InstallError
from bundler.install.stand_in_driver import DRIVER, driver_functions, library
from bundler.workspace import Workspace
from tests.demo.run import tree_size
from tests.demo.shell import Shell
from tests.real.closure import ENVIRONMENT, locked_wheels
from tests.real.fatbin import keep_architecture
from tests.real.hollow import hollow
from tests.real.run import MODEL, make_model_manifest
from tests.real.wheelcut import cut_wheel
from tests.real.workspace import find_python, make_channel, write_locked
from tests.support.resolver import Wheel

HOST = "wheels.small.invalid"
"""Stands in the lock for where the cut wheels come from; nothing answers there: they lie in the store."""

WHEELS_LEFT_OUT = frozenset(
    {"airportsdata", "datasets", "decord2", "flashinfer-cubin", "grpcio", "grpcio-health-checking"}
    | {"grpcio-reflection", "grpcio-tools", "hf-transfer", "hf-xet", "jedi", "llguidance", "lxml"}
    | {"modelscope", "nvidia-cudnn-frontend", "nvidia-cutlass-dsl", "openai-harmony", "outlines"}
    | {"outlines-core", "pandas", "py-spy", "pyarrow", "pycountry", "pycryptodomex", "scipy", "timm"}
    | {"torchaudio", "torchcodec"}
)
FILES_LEFT_OUT = (
    *("*.a", "*.cpp", "*.pyx", "*.alt.so.*", "*/tests/*", "nvidia/*/include/*", "flashinfer/data/*"),
    *("sgl_kernel/sm100/*", "sgl_kernel/flashmla_ops*", "sgl_kernel/spatial_ops*"),
    *("sglang/multimodal_gen/*", "sglang/test/*", "torch/include/*", "torch/share/*", "torch/bin/protoc*"),
    *("nvidia/cudnn/lib/libcudnn_*", "nvidia/cusolver/lib/libcusolverMg*", "nvidia/cublas/lib/libnvblas*"),
    *("nvidia/nvshmem/lib/nvshmem_*", "nvidia/nvshmem/lib/libnvshmem_device*", "nvidia/nvshmem/bin/*"),
    *("nvidia/cuda_cupti/lib/libnvperf*", "nvidia/cuda_cupti/lib/libpcsamplingutil*"),
    *("nvidia/cuda_cupti/lib/libcheckpoint*", "nvidia/cufile/lib/libcufile_rdma*"),
    *("triton/_C/libproton*", "triton/backends/nvidia/lib/cupti/*", "triton/backends/nvidia/bin/nvdisasm"),
    *("triton/backends/nvidia/bin/cuobjdump", "triton/instrumentation/*", "triton/profiler/*"),
    *("torchvision.libs/libnvjpeg*", "lib/*"),
)
PRUNED = (
    *("torch/lib/libtorch_cuda.so", "torch/lib/libtorch_cuda_linalg.so", "torch/lib/libtorch_nvshmem.so"),
    *("nvidia/cublas/lib/*.so*", "nvidia/nccl/lib/*.so*"),
    *("sgl_kernel/sm90/*.so", "sgl_kernel/flash_ops*.so", "torchvision/*.so", "torchao/*.so"),
)
"""Libraries whose GPU code is cut down to one architecture."""
STRIPPED = (
    *("torch/lib/libtorch_cpu.so", "torch/lib/libtorch_python.so", "triton/_C/libtriton.so"),
    *("nvidia/cuda_nvrtc/lib/*.so*", "xgrammar/*.so", "uvloop/*.so", "tokenizers/*.so"),
)
HOLLOW = (
    *(
        "nvidia/cufft/lib/libcufft.so*",
        "nvidia/cufft/lib/libcufftw.so*",
        "nvidia/cusparse/lib/libcusparse.so*",
    ),
    *("nvidia/curand/lib/libcurand.so*", "nvidia/cusolver/lib/libcusolver.so*"),
    *("nvidia/nvshmem/lib/libnvshmem_host.so*", "nvidia/cuda_cupti/lib/libcupti.so*"),
    *("nvidia/cusparselt/lib/libcusparseLt.so*", "nvidia/nvjitlink/lib/libnvJitLink.so*"),
)
"""Libraries that torch is linked with and this server never calls."""

PROOF = """
import sys, torch, types
torch.cuda.is_available = lambda: True
torch.cuda.device_count = lambda: 1
torch.cuda.get_device_capability = lambda *_: (9, 0)
torch.cuda.current_device = lambda: 0
torch.cuda.get_device_name = lambda *_: "NVIDIA H100"
torch.cuda.get_device_properties = lambda *_: types.SimpleNamespace(
    major=9, minor=0, name="NVIDIA H100", total_memory=80 << 30, multi_processor_count=132
)
import sgl_kernel, sglang.launch_server, sglang.srt.entrypoints.http_server, sglang.srt.managers.scheduler
import sglang.srt.models.glm4_moe, sglang.srt.layers.attention.flashattention_backend
import sglang.srt.layers.attention.triton_backend, sglang.srt.function_call.function_call_parser
import sglang.srt.constrained.xgrammar_backend, sgl_kernel.flash_attn
print("imported from", sys.prefix)
"""


def main(words: list[str]) -> int:
    """Read the command line, cut, pack and prove."""
    parser = argparse.ArgumentParser(prog="python -m tests.real.small", description=__doc__)
    parser.add_argument("--dir", type=Path, required=True, help="the folder of: python -m tests.real --dir")
    parser.add_argument("--output", type=Path, required=True, help="where the bundle's folder is made")
    parser.add_argument("--arch", type=int, default=90, help="compute capability, 90 for 9.0")
    parser.add_argument("--volume-size", default="58MiB")
    parser.add_argument("--level", default="12")
    parser.add_argument("--python", help="the Python 3.12 to pack")
    chosen = parser.parse_args(words)
    folder = chosen.dir.absolute()
    small, shell = folder / "small", Shell()
    shell.title("cut the wheels")
    make_small_workspace(folder / "workspace", small, chosen.arch, find_python(chosen.python))
    shell.title("pack")
    bundle = chosen.output / "small"
    words = ["-C", str(small / "workspace"), "-e", ENVIRONMENT, "--model", str(small / f"{MODEL}.toml")]
    words += ["--name", bundle.name, "-o", str(chosen.output), "--replace", "--no-rehearse"]
    shell.bundler("pack", *words, "--level", chosen.level, "--volume-size", chosen.volume_size)
    shell.title("install and import, with a driver that has no GPU")
    installed = small / "installed"
    shutil.rmtree(installed, ignore_errors=True)
    # Without a GPU sgl_kernel takes its library for another one, which was left out: the install's own check
    # fails where there is none, and the proof below says that the GPU is there.
    words = ["unpack", "--installer", "native", str(bundle), str(installed)]
    shell.cut_off(shell.command, *words, allowed=(InstallError.exit_code,))
    prove(installed / ".pixi" / "envs" / ENVIRONMENT, small)
    loads = lay_out_loads(bundle, chosen.output / "loads")
    print(f"\n{bundle}: {size_text(tree_size(bundle))}; {len(loads)} folders to carry:")
    print("\n".join(f"  {load}: {size_text(tree_size(load))}" for load in loads))
    return 0


def lay_out_loads(bundle: Path, folder: Path) -> list[Path]:
    """Make a folder for each journey, of links: the runtime, then each volume, each with the small files."""
    shutil.rmtree(folder, ignore_errors=True)
    large = [bundle / "runtime.tar.gz", *sorted(bundle.glob("data-*"))]
    small = [path for path in bundle.iterdir() if path not in large]
    loads = []
    for number, one in enumerate(large):
        load = folder / f"load-{number:02}"
        load.mkdir(parents=True)
        for path in (one, *small):
            os.link(path, load / path.name)
        loads.append(load)
    return loads


def make_small_workspace(source: Path, target: Path, architecture: int, python: Path) -> None:
    """Cut the wheels of a workspace and lock them as another."""
    workspace = Workspace.load(source)
    wanted = locked_wheels(source / "pixi.lock")
    mirror = source / ".pkg-cache" / "mirror"
    own, fresh = (
        target / "workspace" / ".pkg-cache" / "mirror",
        target / "workspace" / ".pkg-cache" / "mirror" / HOST,
    )
    shutil.rmtree(own, ignore_errors=True)
    fresh.mkdir(parents=True)
    cut = Cutter(architecture)
    wheels: list[Wheel] = []
    for artifact in workspace.environment(ENVIRONMENT).artifacts:
        if artifact.kind != "wheel" or artifact.name in WHEELS_LEFT_OUT:
            continue
        written = fresh / artifact.filename
        cut_wheel(_in(mirror, artifact.url), written, FILES_LEFT_OUT, cut.change)
        wheels.append(_wheel(written, artifact.name, wanted[artifact.name].version))
    print(f"{len(wheels)} wheels, {size_text(cut.zeroed)} of other GPUs' code zeroed")
    runtime = locked_wheels_of_runtime(source, mirror, own)
    packages = make_channel(target / "channel", python)
    write_locked(target, packages, {ENVIRONMENT: tuple(wheels), "bundler": runtime})
    make_model_manifest(target)


class Cutter:
    """Changes the members of wheels, and counts."""

    def __init__(self, architecture: int) -> None:
        self.architecture = architecture
        self.zeroed = 0

    def change(self, name: str, content: bytes) -> bytes:
        """Return what is to be written of a member."""
        if _matches(name, HOLLOW):
            return hollow(content, Path(name).name)
        if _matches(name, PRUNED):
            library = bytearray(content)
            self.zeroed += keep_architecture(library, self.architecture)
            return bytes(library)
        if _matches(name, STRIPPED):
            return stripped(content)
        return content


def stripped(library: bytes) -> bytes:
    """Return a library without the symbols that loading it doesn't need."""
    with TemporaryDirectory() as scratch:
        path = Path(scratch, "library.so")
        path.write_bytes(library)
        subprocess.run(["strip", "--strip-unneeded", path], check=True)
        return path.read_bytes()


def locked_wheels_of_runtime(source: Path, mirror: Path, own: Path) -> tuple[Wheel, ...]:
    """Link the wheels of bundler's own environment into the new store; return them as they were locked."""
    locked, found = locked_wheels(source / "pixi.lock", "bundler"), []
    for artifact in Workspace.load(source).environment("bundler").artifacts:
        if artifact.kind != "wheel":
            continue
        path = _in(mirror, artifact.url)
        link = _in(own, artifact.url)
        link.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, link)
        one = locked[artifact.name]
        found.append(
            Wheel(
                *(one.name, one.version, artifact.url, one.sha256, path.stat().st_size),
                *(f"https://{HOST}/simple/", one.requires_dist, one.requires_python),
            )
        )
    return tuple(found)


def prove(prefix: Path, folder: Path) -> None:
    """Import the server, its kernels and the model's code, with a driver's library that says: no GPU."""
    driver = folder / "driver"
    driver.mkdir(exist_ok=True)
    (driver / DRIVER).write_bytes(library(DRIVER, driver_functions(prefix)))
    variables = {"LD_LIBRARY_PATH": str(driver), "PATH": "/usr/bin:/bin", "CUDA_HOME": str(prefix)}
    variables |= {"SGLANG_IS_FLASHINFER_AVAILABLE": "false", "SGLANG_ENABLE_JIT_DEEPGEMM": "false"}
    variables |= {"HF_HUB_OFFLINE": "1", "HOME": str(folder)}
    subprocess.run([prefix / "bin" / "python", "-c", PROOF], env=variables, cwd="/", check=True)


def _in(mirror: Path, url: str) -> Path:
    from urllib.parse import unquote, urlsplit

    parts = urlsplit(url)
    return mirror / parts.netloc / unquote(parts.path).lstrip("/")


def _wheel(path: Path, name: str, version: str) -> Wheel:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    url, index = f"https://{HOST}/{path.name}", f"https://{HOST}/simple/"
    return Wheel(name, version, url, digest, path.stat().st_size, index, (), None)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
