"""The versions of an environment that decide on which hosts it runs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bundler.artifact import Artifact

CUDNN = "nvidia-cudnn-cu12"
"""The wheel that brings cuDNN."""
RUNTIME_WHEEL = re.compile(r"nvidia-cuda-runtime(?:-cu\d+)?\Z")
"""NVIDIA's wheels of CUDA's runtime: ``-cu12``, and without an ending from CUDA 13 on."""
TOOLKITS = ("cuda-version", "cudatoolkit", "pytorch-cuda", "cuda-cudart")
"""Conda's packages whose version is CUDA's own, the surest first."""
_BUILD = re.compile(r"(?:\A|_)cu(?:da)?(\d+)(?:\.(\d+)|(\d))(?!\d)")
"""CUDA in a build's name: ``cu128``, ``cuda130_mkl_py314``, ``py3.12_cuda12.4_cudnn9``."""


class Stack(msgspec.Struct, frozen=True, kw_only=True):
    """What serves, from the driver up; ``None``: the environment lacks it, or doesn't say."""

    cuda: str | None = None
    """The CUDA version its torch was built for: ``12.8``."""
    python: str | None = None
    torch: str | None = None
    """With its local part: ``2.9.1+cu128``."""
    sglang: str | None = None
    glibc: str | None = None
    """The newest glibc that its wheels' tags or conda records ask for."""
    cudnn: str | None = None


def cuda_built_for(artifacts: Iterable[Artifact]) -> str | None:
    """Return the CUDA version that an environment was built for: ``12.8``.

    torch's own word comes first, in its version's local part or the name of its conda build; then NVIDIA's
    wheels, then conda's CUDA packages.
    """
    return next(_versions_of_cuda(tuple(artifacts)), None)


def _versions_of_cuda(artifacts: tuple[Artifact, ...]) -> Iterator[str]:
    wheels = [one for one in artifacts if one.kind == "wheel"]
    conda = {one.name: one for one in artifacts if one.kind == "conda"}
    builds = [one.version.partition("+")[2] for one in wheels if one.name == "torch"]
    builds += [conda[name].build for name in ("pytorch", "libtorch") if name in conda]
    for match in map(_BUILD.search, builds):
        if match:
            yield f"{match[1]}.{match[2] or match[3]}"
    versions = [one.version for one in wheels if RUNTIME_WHEEL.match(one.name)]
    versions += [conda[name].version for name in TOOLKITS if name in conda]
    yield from (".".join(version.split(".")[:2]) for version in versions)
