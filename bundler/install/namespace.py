"""Ways to run a command with the network cut."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import bundler
from bundler.common.ask import ask
from bundler.errors import RehearsalError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PROBE_TIMEOUT = 30.0
"""Seconds until a way that hangs counts as one that doesn't work."""

SETTINGS = (
    ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=0", "1"),
    ("user/max_user_namespaces", "0", "user.max_user_namespaces=0", "10000"),
    ("user/max_net_namespaces", "0", "user.max_net_namespaces=0", "10000"),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "kernel.apparmor_restrict_unprivileged_userns=1",
        "0",
    ),
)
"""What forbids namespaces: file under ``/proc/sys``, forbidding value, name with it, allowing value."""


class NoIsolationError(RehearsalError):
    """The host forbids every way to cut the network."""


@dataclass(frozen=True, slots=True)
class Isolation:
    """One way to run a command with the network cut."""

    name: str
    """As the manifest's field says it: ``unshare -n``, ``unshare -rn``, ``bwrap``."""
    prefix: tuple[str, ...]
    """What comes before the command."""

    def command(self, command: Sequence[str]) -> list[str]:
        """Return the command line that runs a command where only loopback is up."""
        return [*self.prefix, sys.executable, "-P", "-m", "bundler.install.namespace_child", *command]


def ways() -> list[Isolation]:
    """Return the ways whose programs are here, in the order in which they are tried."""
    found = []
    unshare, bubblewrap = shutil.which("unshare"), shutil.which("bwrap")
    if unshare and os.geteuid() == 0:
        found.append(Isolation("unshare -n", (unshare, "-n")))
    if unshare:
        found.append(Isolation("unshare -rn", (unshare, "-rn")))
    if bubblewrap:
        prefix = (bubblewrap, "--unshare-net", "--die-with-parent", "--dev-bind", "/", "/", "--")
        found.append(Isolation("bwrap", prefix))
    return found


def find_isolation() -> Isolation:
    """Return the first way that works on this host, tried for real.

    :raises NoIsolationError: none does; the findings say what each said, and which settings forbid it.
    """
    tried = []
    for way in ways():
        answer = _try(way)
        if answer is None:
            return way
        tried.append(f"{way.name}: {answer}")
    settings = forbidding_settings()
    raise NoIsolationError(
        "this host doesn't let bundler cut the network",
        findings=[*(tried or ["neither unshare (util-linux) nor bwrap (bubblewrap) is here"]), *settings],
        hint=_way_out(settings),
    )


def forbidding_settings(root: Path = Path("/proc/sys")) -> list[str]:
    """Return the kernel settings of this host that forbid namespaces to a user."""
    found = []
    for path, forbidding, name, _ in SETTINGS:
        try:
            value = (root / path).read_text().strip()
        except OSError:
            continue
        if value == forbidding:
            found.append(f"forbidden by {name}")
    return found


def child_environment(base: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which a child Python finds this very bundler, installed or not."""
    package = str(Path(bundler.__file__).parent.parent)
    search = [package, *filter(None, base.get("PYTHONPATH", "").split(os.pathsep))]
    return {**base, "PYTHONPATH": os.pathsep.join(dict.fromkeys(search))}


def _try(way: Isolation) -> str | None:
    """Return what a way said when it failed, or ``None`` where it works."""
    try:
        done = ask(way.command([]), seconds=PROBE_TIMEOUT, variables=child_environment(os.environ))
    except OSError as problem:
        return problem.strerror or str(problem)
    if done.code == 0:
        return None
    return next(iter(done.last(1)), f"exit code {done.code}")


def _way_out(settings: list[str]) -> str:
    for _, _, name, allowing in SETTINGS:
        if any(name in finding for finding in settings):
            return f"as root: sysctl -w {name.partition('=')[0]}={allowing}; or run bundler as root"
    return (
        "run bundler as root, or in a container with CAP_SYS_ADMIN; --no-rehearse packs without a rehearsal"
    )
