"""The versions of an environment that decide on which hosts it runs."""

from __future__ import annotations

import msgspec

CUDNN = "nvidia-cudnn-cu12"
"""The wheel that brings cuDNN."""


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
