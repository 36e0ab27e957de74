"""Which NVIDIA driver branch runs which CUDA (NVIDIA's CUDA compatibility guide and release notes)."""

from __future__ import annotations

OLDEST_BRANCH = {"12": 525, "13": 580}
"""The oldest driver branch for any CUDA of a major version, by NVIDIA's minor version compatibility."""
OWN_BRANCH = {"12.4": 550, "12.6": 560, "12.8": 570, "12.9": 575, "13.0": 580}
"""The driver branch that came with a CUDA version: older ones can't compile its PTX."""


def branches(cuda: str) -> tuple[int | None, int | None]:
    """Return the oldest branch that runs a CUDA version such as ``12.8``, and the one that came with it."""
    major = cuda.partition(".")[0]
    return OLDEST_BRANCH.get(major), OWN_BRANCH.get(cuda)
