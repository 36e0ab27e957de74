"""What an environment's libraries are linked with that is the host's own: another host may lack it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bundler.common.elf import needed_libraries

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

EVERYWHERE = re.compile(
    r"(?:ld-linux\S*|lib(?:c|m|mvec|dl|rt|pthread|util|resolv|nsl|anl|crypt|gcc_s|stdc\+\+|atomic|z|expat"
    r"|X11|Xext|Xrender|ICE|SM|GL|gobject-2\.0|gthread-2\.0|glib-2\.0))\.so(?:\.|\Z)"
)
"""What every Linux host is taken to have: what wheels may rely on (PEP 600), and glibc's own."""
DRIVERS = re.compile(r"lib(?:cuda|nvcuvid|nvidia\S*)\.so")
"""What comes with the NVIDIA driver."""


def host_libraries(prefix: Path, loaded: Iterable[Path]) -> dict[str, Path]:
    """Return the libraries of this host that an environment's are linked with, each with one of those.

    The interpreter and its standard library don't count: a conda package of Python brings what they need.

    :param loaded: files that were loaded when the environment's modules were imported.
    """
    files = [path for path in loaded if ".so" in path.name]
    own = [path for path in files if path.is_relative_to(prefix.resolve())]
    foreign = [path.name for path in files if path not in own]
    found: dict[str, Path] = {}
    for path in own:
        if "lib-dynload" in path.parts or path.name.startswith("libpython"):
            continue
        for name in needed_libraries(path):
            is_hosts = any(one == name or one.startswith(f"{name}.") for one in foreign)
            if is_hosts and not EVERYWHERE.match(name) and not DRIVERS.match(name):
                found.setdefault(name, path)
    return found
