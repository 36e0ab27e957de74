"""What a model's manifest may set of the server by itself: flags and variables, and of some the values.

A manifest comes with the bundle, and by its launch whoever wrote it decides what the server does. So what it
sets is held against these lists, and the rest wants a word of the user's: ``--allow-launch NAME``. On the
lists is what tunes: sizes, kernels, parsers. Not on them is what names a file, a folder, an address, a module
or a key, or makes a loader or an interpreter run something. A flag that a later SGLang brings isn't on them
either.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bundler.common.text import has_controls
from bundler.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from bundler.model import FlagValue, Launch, LaunchVariant, ModelSpec

_KERNELS = """
attention-backend decode-attention-backend prefill-attention-backend mm-attention-backend sampling-backend
grammar-backend moe-runner-backend moe-a2a-backend fp8-gemm-backend fp4-gemm-backend bf16-gemm-backend
mamba-backend nsa-prefill-backend nsa-decode-backend speculative-moe-runner-backend dtype kv-cache-dtype
quantization disable-flashinfer-autotune disable-custom-all-reduce enable-mscclpp enable-symm-mem
enable-nccl-nvls enable-torch-symm-mem enforce-disable-flashinfer-allreduce-fusion
enable-flashinfer-allreduce-fusion triton-attention-num-kv-splits triton-attention-reduce-in-fp32
enable-deterministic-inference flashinfer-mxfp4-moe-precision enable-fp32-lm-head
"""
_MEMORY = """
mem-fraction-static context-length chunked-prefill-size max-prefill-tokens max-running-requests
max-queued-requests max-total-tokens page-size swa-full-tokens-ratio disable-hybrid-swa-memory
disable-radix-cache radix-eviction-policy enable-mixed-chunk schedule-policy schedule-conservativeness
cpu-offload-gb enable-memory-saver disable-chunked-prefix-cache disable-overlap-schedule
num-continuous-decode-steps stream-interval enable-hierarchical-cache hicache-ratio hicache-size
hicache-write-policy hicache-io-backend hicache-mem-layout max-mamba-cache-size mamba-full-memory-ratio
max-loaded-loras max-loras-per-batch max-lora-rank num-reserved-decode-tokens prefill-max-requests
"""
_GRAPHS = """
disable-cuda-graph disable-cuda-graph-padding cuda-graph-max-bs cuda-graph-bs enable-profile-cuda-graph
enable-cudagraph-gc disable-piecewise-cuda-graph enable-piecewise-cuda-graph piecewise-cuda-graph-max-tokens
enable-torch-compile torch-compile-max-bs enable-single-batch-overlap enable-two-batch-overlap
tbo-token-distribution-threshold
"""
_PARALLEL = """
tp-size dp-size pp-size ep-size tp tensor-parallel-size dp data-parallel-size pp pipeline-parallel-size ep
expert-parallel-size enable-dp-attention enable-dp-lm-head moe-dense-tp-size load-balance-method
ep-num-redundant-experts enable-eplb eplb-algorithm deepep-mode pp-max-micro-batch-size pp-async-batch-depth
attention-context-parallel-size dist-timeout watchdog-timeout soft-watchdog-timeout random-seed
"""
_SPECULATION = """
speculative-algorithm speculative-num-steps speculative-eagle-topk speculative-num-draft-tokens
speculative-accept-threshold-single speculative-accept-threshold-acc speculative-attention-mode
speculative-draft-attention-backend speculative-ngram-min-match-window-size
speculative-ngram-max-match-window-size speculative-ngram-min-bfs-breadth speculative-ngram-max-bfs-breadth
speculative-ngram-match-type speculative-ngram-branch-length speculative-ngram-capacity
"""
_MODEL = """
tool-call-parser reasoning-parser trust-remote-code served-model-name host port skip-server-warmup
skip-tokenizer-init tokenizer-mode enable-multimodal disable-fast-image-processor keep-mm-feature-on-device
mm-max-concurrent-calls mm-per-request-timeout is-embedding sampling-defaults preferred-sampling-params
constrained-json-disable-any-whitespace disable-outlines-disk-cache model-impl log-level log-level-http
enable-metrics enable-cache-report decode-log-interval enable-request-time-stats-logging
weight-loader-disable-mmap disable-shared-experts-fusion enable-fused-moe-sum-all-reduce allow-auto-truncate
tokenizer-worker-num detokenizer-worker-num sleep-on-idle
"""
FLAGS = frozenset(" ".join((_KERNELS, _MEMORY, _GRAPHS, _PARALLEL, _SPECULATION, _MODEL)).split())
"""Flags of ``sglang.launch_server`` without their dashes, as its ``server_args.py`` spells them."""
HOSTS = frozenset({"0.0.0.0", "::", "127.0.0.1", "::1", "localhost"})
"""What ``host`` may be: all of this machine's addresses, or this machine alone; never another's."""
MODEL_CODE = frozenset({"auto", "sglang", "transformers"})
"""What ``model-impl`` may be: the ways that SGLang itself names."""

_TUNING = """
SGLANG_IS_FLASHINFER_AVAILABLE SGLANG_ENABLE_JIT_DEEPGEMM SGLANG_JIT_DEEPGEMM_PRECOMPILE
SGLANG_JIT_DEEPGEMM_COMPILE_WORKERS SGLANG_WARMUP_TIMEOUT SGLANG_ENABLE_TORCH_INFERENCE_MODE
SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN SGLANG_CLIP_MAX_NEW_TOKENS_ESTIMATION SGLANG_SET_CPU_AFFINITY
SGLANG_USE_MESSAGE_QUEUE_BROADCASTER SGLANG_ENABLE_SPEC_V2 SGLANG_MOE_PADDING
SGLANG_BLOCK_NONZERO_RANK_CHILDREN SGLANG_DISABLE_CUDNN_CHECK SGLANG_SKIP_P2P_CHECK SGLANG_DEFAULT_THINKING
SGLANG_TOOL_STRICT_LEVEL SGLANG_DEEPEP_NUM_MAX_DISPATCH_TOKENS_PER_RANK SGLANG_CUTLASS_MOE
SGLANG_ENABLE_FLASHINFER_GEMM SGLANG_FLASHINFER_WORKSPACE_SIZE SGLANG_SUPPORT_CUTLASS_BLOCK_FP8
SGLANG_FORCE_STREAM_INTERVAL NCCL_DEBUG NCCL_DEBUG_SUBSYS NCCL_IB_DISABLE NCCL_IB_TIMEOUT NCCL_IB_RETRY_CNT
NCCL_IB_GID_INDEX NCCL_P2P_DISABLE NCCL_P2P_LEVEL NCCL_SHM_DISABLE NCCL_NVLS_ENABLE NCCL_CUMEM_ENABLE
NCCL_CUMEM_HOST_ENABLE NCCL_MIN_NCHANNELS NCCL_MAX_NCHANNELS NCCL_ALGO NCCL_PROTO NCCL_BUFFSIZE
NCCL_NTHREADS NCCL_LAUNCH_MODE NCCL_GRAPH_MIXING_SUPPORT NVSHMEM_DISABLE_NVLS
TORCH_SYMM_MEM_DISABLE_MULTICAST TORCH_NCCL_AVOID_RECORD_STREAMS TORCH_NCCL_ASYNC_ERROR_HANDLING
TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC PYTORCH_CUDA_ALLOC_CONF PYTORCH_ALLOC_CONF CUDA_DEVICE_MAX_CONNECTIONS
CUDA_DEVICE_ORDER CUDA_MODULE_LOADING OMP_NUM_THREADS MKL_NUM_THREADS TOKENIZERS_PARALLELISM
"""
VARIABLES = frozenset(_TUNING.split())
"""Variables of the server. None that names a file, a folder, a plug-in or an address is among them."""

_FLAG = re.compile(r"[a-z0-9][a-z0-9-]{0,99}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")


def malformed(spec: ModelSpec) -> Iterator[str]:
    """Yield what of a model's launch is no flag, no variable, or a value that would be read as another flag.

    Nobody can allow these: a name with a blank or a value with a dash is more than the one thing it says.
    """
    if spec.served_name is not None and _is_odd(spec.served_name):
        yield f"served-name is {spec.served_name!r}"
    for part in _parts(spec.launch):
        for name, value in part.flags.items():
            if not _FLAG.fullmatch(name):
                yield f"{name!r} is not a flag"
            elif isinstance(value, str) and _is_odd(value):
                yield f"--{name} is {value!r}"
        for name, text in part.env.items():
            if not _VARIABLE.fullmatch(name):
                yield f"{name!r} is not a variable's name"
            elif has_controls(text) or not _is_text(text):
                yield f"{name} is {text!r}"


def unlisted(spec: ModelSpec) -> tuple[str, ...]:
    """Return the names that a model's launch sets and that aren't its to set, sorted."""
    found = set()
    for part in _parts(spec.launch):
        found |= {
            name for name, value in (*part.flags.items(), *part.env.items()) if not may_set(name, value)
        }
    return tuple(sorted(found))


def exceptions(specs: Iterable[ModelSpec], allowed: Collection[str], where: object) -> tuple[str, ...]:
    """Return the names that these launches set by the user's word alone, sorted: for the receipt.

    :param allowed: the user's words.
    :param where: what is read, for messages.
    :raises InputError: a name that no word of the user's allows.
    """
    named = {word.removeprefix("--") for word in allowed}
    used: set[str] = set()
    for spec in specs:
        found = unlisted(spec)
        refused = [name for name in found if name not in named]
        if refused:
            raise InputError(
                f"the manifest of {spec.name} sets what a manifest may not set by itself",
                where=where,
                findings=[line for line in settings(spec.launch) if line.partition(" ")[0] in refused],
                hint="take it out; or, where you know who wrote it and what it does, allow it: "
                + " ".join(f"--allow-launch {name}" for name in refused),
            )
        used |= {*found}
    return tuple(sorted(used))


def settings(launch: Launch) -> Iterator[str]:
    """Yield each name with its value, as findings show it."""
    for part in _parts(launch):
        yield from (f"{name} = {value!r}" for name, value in (*part.flags.items(), *part.env.items()))


def _parts(launch: Launch) -> Iterator[Launch | LaunchVariant]:
    yield launch
    yield from launch.variants


def may_set(name: str, value: FlagValue) -> bool:
    """Tell whether a manifest may set a flag or variable to a value by itself."""
    words = {"host": HOSTS, "model-impl": MODEL_CODE}
    return name in VARIABLES or (name in FLAGS and (name not in words or value in words[name]))


def _is_odd(value: str) -> bool:
    return value.startswith("-") or has_controls(value) or not _is_text(value)


def _is_text(value: str) -> bool:
    try:
        return len(value.encode()) <= 4096
    except UnicodeEncodeError:
        return False
