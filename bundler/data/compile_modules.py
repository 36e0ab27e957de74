"""Compiles an environment's modules, run by that environment's interpreter: bundler isn't in it.

Its arguments are folders. Of each hundred modules it prints a line.
"""

import compileall
import contextlib
import importlib.util
import marshal
import os
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

LEFT = re.compile(r"\.pyc\.[0-9]+$")
"""The temporary name of a compiled module, as ``py_compile`` makes it."""
STEP = 100
HEADER = 16
"""Bytes before the code in a compiled module (PEP 552)."""


def compile_module(path):
    """Compile a module that isn't compiled yet, or was changed since, or whose compiled file is cut short."""
    for _ in range(2):
        # Wheels bring templates and samples that aren't Python, and nobody imports those.
        with contextlib.suppress(Exception):
            compileall.compile_file(path, quiet=2)
        if is_whole(Path(importlib.util.cache_from_source(path))):
            break


def is_whole(compiled):
    """Say whether a compiled module can be read, or isn't there; remove it otherwise.

    On a full disk Python leaves it cut short, and stumbles over it ever after.
    """
    try:
        marshal.loads(compiled.read_bytes()[HEADER:])
    except OSError:
        return True
    except (EOFError, ValueError, TypeError):
        compiled.unlink()
        return False
    return True


def main():
    """Compile all, over all cores."""
    found = [path for folder in sys.argv[1:] for path in Path(folder).rglob("*.py*")]
    for path in found:
        # What a run that was killed was writing: nobody reads it.
        if LEFT.search(path.name):
            path.unlink(missing_ok=True)
    modules = [str(path) for path in found if path.suffix == ".py"]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for done, _ in enumerate(pool.map(compile_module, modules, chunksize=32), 1):
            if done % STEP == 0:
                print(STEP, flush=True)


if __name__ == "__main__":
    main()
