"""Compiles an environment's modules, run by that environment's interpreter: bundler isn't in it.

Its arguments are folders. A compiled module is left as ``NAME.pyc.new`` beside its place: who runs this gives
it its name once it is durable. Of each hundred modules a line is printed.
"""

import contextlib
import importlib.util
import marshal
import os
import py_compile
import re
import struct
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

# It is started with another place for compiled modules, as those here may be damaged.
sys.pycache_prefix = None

LEFT = re.compile(r"\.pyc\.(new|[0-9]+)(\.[0-9]+)?$")
"""What a run that was killed left: as this script names it, and as ``py_compile`` does meanwhile."""
STEP = 100
HEADER = 16
"""Bytes before the code in a compiled module (PEP 552)."""


def compile_module(path):
    """Compile a module that isn't compiled yet, or was changed since, or whose compiled file is damaged."""
    place = Path(importlib.util.cache_from_source(path))
    if is_current(Path(path), place):
        return
    new = place.with_name(place.name + ".new")
    for _ in range(2):
        # Wheels bring templates and samples that aren't Python, and nobody imports those.
        with contextlib.suppress(Exception):
            py_compile.compile(path, cfile=str(new), doraise=True)
        # On a full disk Python leaves it cut short.
        if new.is_file() and is_code(new.read_bytes()):
            return
        new.unlink(missing_ok=True)


def is_current(source, compiled):
    """Say whether a compiled module is that of its source and can be read; remove one that can't."""
    try:
        data, status = compiled.read_bytes(), source.stat()
    except OSError:
        return False
    if not is_code(data):
        compiled.unlink()
        return False
    head = data[:HEADER]
    by_time = struct.pack("<LLL", 0, int(status.st_mtime) & 0xFFFFFFFF, status.st_size & 0xFFFFFFFF)
    # Other flags than 0 say that the source's digest counts, not its time.
    return head[:4] == importlib.util.MAGIC_NUMBER and (head[4:8] != bytes(4) or head[4:] == by_time)


def is_code(data):
    """Say whether a compiled module's bytes can be read."""
    try:
        marshal.loads(data[HEADER:])
    except (EOFError, ValueError, TypeError):
        return False
    return True


def main():
    """Compile all, over all cores."""
    found = [path for folder in sys.argv[1:] for path in Path(folder).rglob("*.py*")]
    for path in found:
        if LEFT.search(path.name):
            path.unlink(missing_ok=True)
    modules = [str(path) for path in found if path.suffix == ".py"]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for done, _ in enumerate(pool.map(compile_module, modules, chunksize=32), 1):
            if done % STEP == 0:
                print(STEP, flush=True)


if __name__ == "__main__":
    main()
