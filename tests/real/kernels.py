"""SGLang's kernels against the CUDA libraries that an environment of the lock brings, without a GPU.

    python -m tests.real.kernels [--env default]

Installs both by name into a folder of its own (2 GB), and compares what the kernels ask of the CUDA
libraries with what these define: a symbol that isn't there ends the server at its start. Wants ``nm`` of
binutils.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from uv import find_uv_bin

from bundler.workspace import Workspace

KERNELS = ("sgl-kernel",)
LIBRARIES = ("nvidia-cuda-runtime-cu12", "nvidia-cublas-cu12", "nvidia-cuda-nvrtc-cu12")
CUDA = re.compile(r"cuda[A-Z]|__cuda[A-Z]|cublas|nvrtc")
"""How the names of these libraries' functions begin; the driver's, ``cu…``, come with the driver."""


def main(words: list[str]) -> int:
    """Read the command line, compare, and say what is missing; exit 1 if something is."""
    parser = argparse.ArgumentParser(prog="python -m tests.real.kernels", description=__doc__)
    parser.add_argument("--env", default="default")
    environment = Workspace.load(Path(__file__).parents[2]).environment(parser.parse_args(words).env)
    versions = {one.name: one.version for one in environment.artifacts if one.kind == "wheel"}
    with TemporaryDirectory() as folder:
        kernels = _installed(Path(folder, "kernels"), {name: versions[name] for name in KERNELS})
        libraries = _installed(Path(folder, "libraries"), {name: versions[name] for name in LIBRARIES})
        there = {symbol for path in libraries for symbol in _symbols(path, "--defined-only")}
        named = {symbol.partition("@")[0] for symbol in there}
        lacking = 0
        for path in kernels:
            wanted = {one for one in _symbols(path, "--undefined-only") if CUDA.match(one)}
            # What a library that it isn't linked with has, a kernel names without a version.
            missing = sorted(one for one in wanted if one not in (there if "@" in one else named))
            lacking += len(missing)
            print(
                f"{path.relative_to(folder)}: {len(wanted)} symbols, missing: {', '.join(missing) or 'none'}"
            )
    return min(lacking, 1)


def _installed(target: Path, versions: dict[str, str]) -> list[Path]:
    """Install wheels by name, without what they depend on; return their libraries."""
    command = [find_uv_bin(), "pip", "install", "-q", "--no-deps", "--target", str(target)]
    platform = ["--python-platform", "x86_64-manylinux_2_28", "--python-version", "3.12"]
    subprocess.run(
        [*command, *platform, *(f"{name}=={version}" for name, version in versions.items())], check=True
    )
    return sorted(target.rglob("*.so*"))


def _symbols(library: Path, which: str) -> set[str]:
    """Return a library's symbols with their versions, as ``NAME@VERSION``."""
    done = subprocess.run(
        ["nm", "-D", "--with-symbol-versions", which, library], capture_output=True, text=True, check=True
    )
    return {line.split()[-1].replace("@@", "@") for line in done.stdout.splitlines()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
