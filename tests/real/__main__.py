"""Make a bundle of the real environment, 5 GB of wheels, and go the whole way with it, in a scratch folder.

Wants Python 3.12 with its headers, libnuma, a package index, and 28 GB of disk; takes some ten minutes. Run
again with the same --dir it goes on where it stopped. With BUNDLER_PIXI or pixi on PATH it installs by pixi,
too.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path


def main(words: list[str]) -> int:
    """Read the command line and run the steps."""
    from tests.real.run import STEPS, Real, run_real

    parser = argparse.ArgumentParser(prog="python -m tests.real", description=__doc__)
    parser.add_argument(
        "--dir", type=Path, help="where all of it goes, and stays  [default: a temporary folder, removed]"
    )
    parser.add_argument("--python", help="a Python 3.12 to pack  [default: one of PATH, pyenv or uv]")
    parser.add_argument(
        "--from", dest="again", choices=[step.name for step in STEPS], help="do anew from here"
    )
    chosen = parser.parse_args(words)
    folder = (chosen.dir or Path(tempfile.mkdtemp(prefix="bundler-real-"))).absolute()
    code = run_real(Real(folder, chosen.python), again=chosen.again)
    if code or chosen.dir:
        print(f"\nleft: {folder}; again: python -m tests.real --dir {folder}")
    else:
        shutil.rmtree(folder)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
