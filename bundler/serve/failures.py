"""Known ways for the server to fail, recognised in its log, each with its cause and its fix."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure that was seen before."""

    pattern: re.Pattern[str]
    cause: str
    fix: str


KNOWN = r"""
address already in use|error while attempting to bind on address|Port is already in use
    the port is taken
    choose another with --port N, or end what listens there: ss -ltnp
Not enough memory\. Please try to increase --mem-fraction-static
    the weights leave no room for the KV cache
    raise --mem-fraction-static, use more or larger GPUs, or a smaller (FP8) model
memory capacity is unbalanced
    one GPU has much less free memory than another: something else runs on it
    end it (nvidia-smi shows it), or leave that GPU out with CUDA_VISIBLE_DEVICES
Capture cuda graph failed|Capture .*CUDA graph failed
    capturing CUDA graphs failed
    lower --mem-fraction-static or --cuda-graph-max-bs; where the all-reduce failed:
    --disable-custom-all-reduce; else --disable-cuda-graph
CUDA out of memory|OutOfMemoryError|CUDA error: out of memory
    a GPU ran out of memory
    lower --mem-fraction-static, free the GPUs, or use more of them
CuDNN Compatibility|cudnn.*(9\.15|compatib)|SGLANG_DISABLE_CUDNN_CHECK
    torch 2.9.1 with a cuDNN older than 9.15: SGLang refuses it for models that see images
    lock nvidia-cudnn-cu12 9.16.0.29, or set SGLANG_DISABLE_CUDNN_CHECK=1 (slower images)
deep_gemm.*AssertionError|assert cuda_home is not None|_find_cuda_home
    DeepGEMM wants a CUDA toolkit's place at import
    set CUDA_HOME to any folder (bundler does, unless it was set empty)
cannot find -lcuda|libcuda\.so cannot found|ld: cannot find.*lcuda
    Triton's linker finds no libcuda.so
    leave TRITON_LIBCUDA_PATH to bundler, or link libcuda.so to the driver's libcuda.so.1
Failed to find C compiler|Please specify via CC
    Triton finds no C compiler
    start it by bundler serve, which activates the environment; or install gcc
libnuma\.so\.1: cannot open
    sgl_kernel finds no libnuma.so.1
    lock libnuma in the environment, or install libnuma1 (numactl-libs) on the host
Could not find nvcc|nvcc: (command )?not found|nvcc.*No such file|MissingJITCacheError
    something is compiled at run time with nvcc, which isn't there
    unset SGLANG_IS_FLASHINFER_AVAILABLE and other overrides; from SGLang 0.5.11 on install the toolkit
Ninja is required|No such file or directory: .ninja.
    something is compiled at run time with ninja, which isn't there
    lock ninja in the environment, or install it on the host
libnvrtc\.so|libcudart\.so\.\d+: cannot open|libcublas\S*\.so\.\d+: cannot open
    a CUDA library of the environment isn't found
    bundler check shows which; is the environment whole? bundler install
no kernel image is available|CUDA_ERROR_NO_BINARY_FOR_GPU
    torch or sgl_kernel holds no code for this GPU
    serve from an environment for a newer CUDA: cu128 for Blackwell
CUDA driver version is insufficient|driver on your system is too old|CUDA_ERROR_UNSUPPORTED_PTX
    the driver is too old for the environment's CUDA
    update the driver; bundler doctor says to which branch
system not yet initialized|CUDA_ERROR_SYSTEM_NOT_READY|Error 802
    the fabric manager isn't up
    systemctl start nvidia-fabricmanager
No accelerator \(CUDA, XPU, HPU, NPU\) is available
    torch finds no GPU: the driver's libcuda.so.1 can't be loaded, or CUDA_VISIBLE_DEVICES names none
    bundler doctor says which; nvidia-smi must list the GPUs for the user that serves
(invalid device ordinal|No CUDA GPUs are available)
    fewer GPUs are visible than tp-size
    lower --tp-size, or see CUDA_VISIBLE_DEVICES
could finish the model loading, but there are other ranks
    one rank loaded its weights more than 480 s after another
    put the weights on a faster local disk
Watchdog caught collective operation timeout|ProcessGroupNCCL.*Timeout
    NCCL waited too long for another rank
    --dist-timeout 3600; bundler check tries an all-reduce
NCCL error|ncclSystemError|ncclUnhandledCudaError|ncclInternalError
    NCCL failed between the GPUs
    see /dev/shm and the fabric manager with bundler doctor; NCCL_DEBUG=INFO says more
(?i)gloo.*(connectFullMesh|unable to|timed out|Connection refused)|Unable to find address for
    the ranks don't find each other: gloo chose a wrong interface
    GLOO_SOCKET_IFNAME=lo on one node, on several the interface that reaches the others
invalid choice: '(?P<flag>[^']+)'
    this SGLang doesn't know a value of a flag
    it is too old for the model: pack an environment with a newer SGLang
unrecognized arguments?:
    this SGLang doesn't know a flag
    see python -m sglang.launch_server --help in the environment
MetadataIncompleteBuffer|HeaderTooLarge|InvalidHeaderDeserialization|SafetensorError
    a weight file is damaged
    bundler doctor --deep names it; unpack its bundle again
is not supported for now\. Supported architectures|has no SGLang[^,]* implementation(?!, falling back)
    this SGLang doesn't know the model's architecture
    pack an environment with a newer SGLang
No module named 'sglang'
    the interpreter has no SGLang
    name one that has: --python PATH
No space left on device
    a disk is full
    free space where the caches and /dev/shm are
Bus error|unexpected bus error|insufficient shared memory
    /dev/shm is full or too small
    mount -o remount,size=16G /dev/shm (in a container: --shm-size=16g)
(edge\.urm\.nvidia\.com|huggingface\.co|modelscope\.cn).*(resolve|refused|unreachable|retries)
Max retries exceeded|Temporary failure in name resolution
    something wants to be downloaded, and there is no network
    is the model's folder whole? bundler doctor --deep
scheduler.*(died|crashed).*exit code:? -9|\bExit code: -9\b|\bterminated with -9\b
    a rank was killed: by somebody, or by the kernel for want of main memory
    dmesg -T | grep -i oom tells which; where memory is short, try --no-read-ahead
Initialization failed\. warmup error|warmup.*(timed? ?out|failed)
    the first request, which warms the server up, failed
    the lines above it in the log say why; SGLANG_WARMUP_TIMEOUT gives it more seconds
SymmDeviceMemory|flashinfer_comm_fusion\.py|flashinfer/comm/
    FlashInfer's fused all-reduce waits for ever where NVLink multicast can't be used
    leave out --enable-flashinfer-allreduce-fusion; SGLang from 0.5.10.post1 on:
    -- --enforce-disable-flashinfer-allreduce-fusion; before: SGLANG_IS_FLASHINFER_AVAILABLE=false
"""
"""In the order in which they decide: the particular before the general, the cause before what follows it.

Of each the patterns, any of which tells of it, and below them, indented, its cause in one line and its fix.
"""


def _read_known() -> Iterator[Failure]:
    for patterns, cause, fix in re.findall(r"((?:^\S.*\n)+)    (.*)\n((?:    .*\n)+)", KNOWN, re.MULTILINE):
        pattern = re.compile("|".join(patterns.splitlines()))
        yield Failure(pattern, cause, " ".join(line.strip() for line in fix.splitlines()))


FAILURES = tuple(_read_known())

ARGUMENTS = re.compile(r"server_args=ServerArgs\(")
"""SGLang prints its hundred settings in one line, whose names look like failures."""


EXCEPTION = re.compile(r"Traceback \(most recent|Scheduler hit an exception|\w(Error|Exception)\b")
SIGQUIT = re.compile(r"Received sigquit from a child process")
"""A rank failed: what it says stands above, and SGLang then kills its own processes."""
FRAME = re.compile(r'\s+File ".*", line \d+')
MARKS = re.compile(r"\s+[\^~]+\s*$")


def explain(lines: Sequence[str]) -> Failure | None:
    """Return the failure that a log tells of; ``None`` where it is none of those known.

    What exceptions say goes before the code that the frames of their tracebacks show.
    """
    told = [line for line in _until_sigquit(lines) if not ARGUMENTS.search(line)]
    for text in (_without_code(told), told):
        for failure in FAILURES:
            if any(failure.pattern.search(line) for line in text):
                return failure
    return None


def diagnose(lines: Sequence[str], places: Sequence[str] = ()) -> tuple[list[str], str | None]:
    """Return what a log says of a failure, its known cause last, and the fix where there is one.

    :param places: where the server's processes are, where it hangs.
    """
    known = explain([*lines, *places])
    cause = [f"cause: {known.cause}"] if known else []
    return [*telling(lines), *places, *cause], known.fix if known else None


def telling(lines: Iterable[str], count: int = 8) -> list[str]:
    """Return the last lines of a log that say something: without progress bars and tracebacks' frames.

    Where a rank failed they are its own last ones.
    """
    kept = [
        line.rstrip()
        for line in _without_code(_until_sigquit(list(lines)))
        if line.strip() and "it/s]" not in line
    ]
    return kept[-count:]


def _until_sigquit(lines: Sequence[str]) -> Sequence[str]:
    """Leave out what came after a rank's failure, unless a rank was killed and said nothing."""
    place = next((number for number, line in enumerate(lines) if SIGQUIT.search(line)), len(lines))
    return lines[:place] if any(EXCEPTION.search(line) for line in lines[:place]) else lines


def _without_code(lines: Sequence[str]) -> list[str]:
    """Leave out the frames of tracebacks: place, code and the marks below it."""
    kept: list[str] = []
    before = ""
    for line in lines:
        if not (FRAME.match(line) or MARKS.match(line) or FRAME.match(before)):
            kept.append(line)
        before = line
    return kept


def ending(code: int, lines: Sequence[str] = ()) -> str:
    """Say how a process ended.

    :param lines: its log, which tells whether SGLang killed itself because a rank had failed.
    """
    import signal

    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if code != -signal.SIGKILL:
        return name
    if any(SIGQUIT.search(line) for line in lines):
        return f"{name} (by itself, as a rank had failed)"
    return f"{name} (killed: by somebody, or by the kernel for want of memory: see dmesg)"
