"""Libraries that have the symbols of a real one and do nothing: whoever is linked with it loads."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VERSION_NAME = "A"
"""nm's letter for an absolute symbol: the name of a version itself."""


def hollow(real: bytes, name: str) -> bytes:
    """Return a library with the exported symbols and versions of a real one; each function returns 1."""
    with TemporaryDirectory() as scratch:
        path = Path(scratch, name)
        path.write_bytes(real)
        return _build(Path(scratch), name, exported(path), 1)


def exported(library: Path) -> dict[str, list[str]]:
    """Return the C functions that a library exports, by their version; ``""``: without one.

    Names of C++ stay out: others have them too, and would find these first.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for symbol in _symbols(library, "--defined-only"):
        name, _, version = symbol.replace("@@", "@").partition("@")
        if name.isidentifier() and not name.startswith("_"):
            found[version].append(name)
    return found


def _symbols(library: Path, which: str) -> list[str]:
    done = subprocess.run(["nm", "-D", which, library], capture_output=True, text=True, check=True)
    rows = (line.split() for line in done.stdout.splitlines() if line)
    return [row[-1] for row in rows if row[-2] != VERSION_NAME]


def _build(folder: Path, name: str, symbols: Mapping[str, Sequence[str]], answer: int) -> bytes:
    source, script, library = folder / "hollow.c", folder / "versions", folder / f"hollow-{name}"
    names = sorted({one for some in symbols.values() for one in some})
    source.write_text("".join(f"int {one}(void) {{ return {answer}; }}\n" for one in names))
    versions = [
        f"{version} {{ global: {'; '.join(sorted(some))}; }};\n"
        for version, some in symbols.items()
        if version and some
    ]
    script.write_text("".join(versions))
    scripted = [f"-Wl,--version-script={script}"] if versions else []
    words = ["gcc", "-w", "-fno-builtin", "-nostdlib", "-shared", "-s", f"-Wl,-soname,{name}", *scripted]
    subprocess.run([*words, "-o", library, source], check=True)
    return library.read_bytes()
