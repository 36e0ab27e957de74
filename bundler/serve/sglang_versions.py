"""What makes a version of SGLang run without a CUDA toolkit and without a network, keyed by its version.

SGLang 0.5.7 compiles kernels with nvcc unless it is told not to: FlashInfer's fused all-reduce at the first
forward pass, FlashInfer's attention and sampling, DeepGEMM at import. With these variables and flags it uses
what sgl-kernel and Triton bring. From 0.5.11 on SGLang compiles too much for that: it wants nvcc on the host.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bundler.host.needs import version_in

if TYPE_CHECKING:
    from pathlib import Path

    from bundler.model import FlagValue, LaunchVariant, ModelFacts, ModelSpec

COMMON = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "SGLANG_WARMUP_TIMEOUT": "1800"}
"""For every version: no hub is asked, and the warm-up may compile."""

CACHES = {
    "TRITON_CACHE_DIR": "triton",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TORCH_EXTENSIONS_DIR": "torch-extensions",
    "FLASHINFER_WORKSPACE_BASE": "flashinfer",
    "TVM_FFI_CACHE_DIR": "tvm-ffi",
    "SGLANG_DG_CACHE_DIR": "deep-gemm",
    "CUDA_CACHE_PATH": "cuda",
    "OUTLINES_CACHE_DIR": "outlines",
    "HF_HOME": "huggingface",
}
"""Variables that name a cache, and its folder; kept between starts, so that the second compiles nothing."""


NO_FUSION = "enforce-disable-flashinfer-allreduce-fusion"
"""FlashInfer's fused all-reduce turns itself on, and hangs where NVLink multicast can't be used."""
NO_FUSION_SINCE = ">=0.5.10.post1"
"""The versions that have the flag; for those before a variable does it."""
WITHOUT_NVCC = {"SGLANG_IS_FLASHINFER_AVAILABLE": "false", "SGLANG_ENABLE_JIT_DEEPGEMM": "false"}
"""What keeps the versions that can do without nvcc from calling it."""


def needs_nvcc(sglang: str | None) -> bool:
    """Say whether a version compiles with nvcc, whatever one tells it; an unknown one counts as older."""
    return version_in(sglang, ">=0.5.11")


def version_flags(sglang: str | None, family: str | None, facts: ModelFacts) -> dict[str, FlagValue]:
    """Return the flags that a version needs where neither manifest nor user names them."""
    flags: dict[str, FlagValue] = {NO_FUSION: True} if version_in(sglang, NO_FUSION_SINCE) else {}
    if needs_nvcc(sglang):
        return flags
    # "flashinfer" is the name under which this version calls sgl-kernel's own sampling.
    flags["sampling-backend"] = "flashinfer"
    if family is not None:
        flags["attention-backend"] = "fa3" if family == "hopper" and not facts.vision else "triton"
    return flags


def version_environment(sglang: str | None, caches: Path, prefix: Path) -> dict[str, str]:
    """Return the variables for a version: offline, caches, and what keeps nvcc out.

    CUDA_HOME names the environment then, which needs no toolkit in it.
    """
    kept_out = {} if needs_nvcc(sglang) else WITHOUT_NVCC | {"CUDA_HOME": str(prefix)}
    return COMMON | kept_out | {name: str(caches / folder) for name, folder in CACHES.items()}


def matching_variants(
    spec: ModelSpec, environment: str | None, family: str | None, sglang: str | None
) -> list[LaunchVariant]:
    """Return the manifest's variants that hold here; an unknown GPU family matches only variants for all."""
    return [
        variant
        for variant in spec.launch.variants
        if (not variant.environments or environment in variant.environments)
        and (not variant.gpu_families or family in variant.gpu_families)
        and version_in(sglang, variant.sglang)
    ]
