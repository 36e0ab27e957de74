"""On a GPU host: take what one carried folder holds of a bundle that is too big to be carried at once.

    python3 -m tests.gpu.bring --home HOME FOLDER…

The folder with ``install.sh`` and ``runtime.tar.gz`` comes first, then folders with a volume or several, in
any order, each with the bundle's small files beside it, as disks in turn; with the last volume it installs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

WAITS = 7
"""unpack's exit code where more volumes are to come."""


def bring(home: Path, folder: Path) -> int:
    """Take what a carried folder holds: the runtime, or volumes.

    :returns: 0, or the exit code of what failed.
    """
    bundler = home / "bin" / "bundler"
    if (folder / "runtime.tar.gz").exists() and not bundler.exists():
        subprocess.run(["sh", folder / "install.sh", "--runtime-only", home], check=True)
    if not list(folder.glob("data-*")):
        return 0
    began = time.monotonic()
    code = subprocess.run([bundler, "unpack", "--partial", folder, home], check=False).returncode
    print(f"[{folder.name}: exit {code}, {time.monotonic() - began:.1f} s]", flush=True)
    return 0 if code == WAITS else code


def main() -> int:
    """Read the command line, and end at the first folder that fails."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--home", type=lambda text: Path(text).absolute(), required=True)
    parser.add_argument("folders", type=lambda text: Path(text).absolute(), nargs="+")
    chosen = parser.parse_args()
    return next((code for folder in chosen.folders if (code := bring(chosen.home, folder))), 0)


if __name__ == "__main__":
    sys.exit(main())
