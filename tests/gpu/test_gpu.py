"""The real NVML, torch and Triton, beside the stand-ins of ``tests/serve``; skipped where there is no GPU.

The whole way, with a bundle and SGLang, is ``run.py``; ``BUNDLER_GPU_RUN`` set to its arguments runs it here.
"""

import importlib.util
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from bundler.host.facts import describe
from bundler.host.gpu import read_gpus
from bundler.serve.check import run_check

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not read_gpus().gpus, reason="no NVIDIA GPU here"),
]


def test_nvml_agrees_with_nvidia_smi() -> None:
    """Driver, names, memory and compute capability are what nvidia-smi prints."""
    query = [
        "nvidia-smi",
        "--query-gpu=name,driver_version,memory.total,compute_cap",
        "--format=csv,noheader,nounits",
    ]
    lines = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
    facts = describe()
    assert len(lines) == len(facts.gpus)
    for line, gpu in zip(lines, facts.gpus, strict=True):
        name, driver, memory, capability = line.split(", ")
        assert (gpu.name, facts.driver, gpu.compute_capability) == (name, driver, capability)
        assert abs(gpu.memory / 2**20 - float(memory)) < 1024
    assert facts.libraries["libcuda.so.1"]


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="no torch in this interpreter")
def test_check_of_this_interpreter() -> None:
    """torch is imported, a Triton kernel compiled and run, an all-reduce done over all GPUs."""
    results = run_check(Path(sys.executable), os.environ, ("torch",))
    assert all(one.passed for one in results), results


@pytest.mark.skipif("BUNDLER_GPU_RUN" not in os.environ, reason="BUNDLER_GPU_RUN names no bundle")
@pytest.mark.timeout(1800)
def test_the_whole_way() -> None:
    """``run.py`` finds nothing wrong."""
    words = [sys.executable, "-m", "tests.gpu.run", *shlex.split(os.environ["BUNDLER_GPU_RUN"])]
    assert subprocess.run(words, cwd=Path(__file__).parents[2], check=False).returncode == 0
