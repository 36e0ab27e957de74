"""What travels to run bundler itself where no Python is: ``runtime.tar.gz``, and ``install.sh``.

The runtime is made of the environment ``bundler``: the workspace's, or the one in bundler's own lock.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import time
import zlib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bundler import __version__
from bundler.common.ask import ask
from bundler.common.digest import sha256_of
from bundler.common.progress import SILENT
from bundler.errors import InputError, InstallError
from bundler.host.system_checks import OLDEST_GLIBC
from bundler.install.installer import Caches
from bundler.install.wheels import claim_for_pixi, find_uv
from bundler.manifest import Runtime
from bundler.runtime import relocatable
from bundler.runtime.launchers import template
from bundler.runtime.own_wheel import own_wheel
from bundler.workspace import OWN_ENVIRONMENT, own_workspace, prefix_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bundler.common.progress import Reporter
    from bundler.store import Store
    from bundler.workspace import EnvironmentLock, Workspace

CACHE = "runtime"
"""The store's folder of runtimes made before, by what they were made of."""
KEPT = 3
"""How many of them are kept."""
ABANDONED = 24 * 3600
"""Seconds after which a scratch folder belongs to no run any more."""
RECIPE = "1"
"""Counts up when the same inputs are made into another archive."""
NEEDED = (
    "blake3",
    "click",
    "msgspec",
    "packaging",
    "psutil",
    "pynvml",
    "tomli",
    "tqdm",
    "yaml",
    "zfec",
    "zstandard",
)
"""Modules that the commands of the air-gapped host import; tried before the runtime travels."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a runtime is made of."""

    environment: EnvironmentLock
    wheel: Path
    """bundler's own, which is installed on top."""
    pixi: Path | None
    """A pixi that is put in, where the environment has none."""
    pixi_version: str | None

    def key(self) -> str:
        """Return a digest of all inputs and of the tools that shape the bytes."""
        parts = [RECIPE, metadata.version("conda-pack"), zlib.ZLIB_RUNTIME_VERSION, sha256_of(self.wheel)]
        parts += sorted(artifact.pinned or artifact.url for artifact in self.environment.artifacts)
        parts += [sha256_of(self.pixi)] if self.pixi else []
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def build_runtime(
    workspace: Workspace,
    store: Store,
    out: Path,
    *,
    pixi: Path | None = None,
    reporter: Reporter = SILENT,
) -> Runtime:
    """Write ``runtime.tar.gz``, or take the one that was made of the same inputs before.

    :param workspace: where an environment ``bundler`` is looked for first.
    :param store: holds the artifacts of the environment that the runtime is made of; nothing is downloaded.
    :param out: the archive's place; an older one is replaced.
    :param pixi: a pixi to put in where the environment has none; never looked for unasked.
    :returns: what the archive holds.
    :raises InputError: what came with bundler is gone, or the pixi is none.
    :raises InstallError: it couldn't be made, or doesn't run.
    :raises DamagedError: a file of bundler was changed after its install.
    """
    folder = store.root / CACHE
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    # Inside the store: the packages are hard links out of its caches.
    with tempfile.TemporaryDirectory(prefix=".making-", dir=folder.absolute()) as name:
        scratch = Path(name)
        own = own_workspace(workspace)
        plan = _plan(own.environments[OWN_ENVIRONMENT], pixi, scratch)
        made = folder / f"{plan.key()}.tar.gz"
        facts = made.with_suffix("").with_suffix(".json")
        if not (made.is_file() and facts.is_file()):
            reporter.say("making the runtime that bundler travels in")
            runtime = _make(plan, own, store, scratch, reporter)
            (scratch / "runtime.tar.gz").replace(made)
            facts.write_bytes(msgspec.json.encode(runtime))
            _prune(folder)
        _place(made, out)
        return msgspec.json.decode(facts.read_bytes(), type=Runtime)


def _plan(environment: EnvironmentLock, pixi: Path | None, scratch: Path) -> _Plan:
    """Decide what the runtime is made of, and make bundler's own wheel."""
    folder = scratch / "wheels"
    folder.mkdir()
    wheel, version = own_wheel(folder), environment.version_of("pixi")
    if version is None and pixi is not None:
        return _Plan(environment, wheel, pixi, _pixi_version(pixi))
    return _Plan(environment, wheel, None, version)


def _pixi_version(pixi: Path) -> str:
    """Ask a pixi for its version."""
    try:
        said = ask([pixi, "--version"], seconds=60).out
    except OSError as problem:
        said = str(problem)
    if not (found := re.match(r"pixi (\d[\w.]*)", said)):
        raise InputError("this pixi doesn't say its version, so it can't travel", where=pixi)
    return found[1]


def _make(plan: _Plan, workspace: Workspace, store: Store, scratch: Path, reporter: Reporter) -> Runtime:
    """Install, pack and compress; the result is ``runtime.tar.gz`` in the scratch folder."""
    from bundler.install.native import NativeInstaller

    root = scratch / "root"
    root.mkdir()
    for path in workspace.files:
        shutil.copyfile(path, root / path.name)
    installer = NativeInstaller.find(Caches.of_store(store.root.absolute()))
    installer.install(root, [plan.environment], store, reporter)
    prefix = prefix_of(root, plan.environment.name)
    _install_wheel(prefix, plan.wheel, scratch)
    _try_out(prefix)
    relocatable.settle_scripts(prefix)
    packed = scratch / "packed.tar"
    relocatable.conda_pack(prefix, packed, scratch)
    added = {"bin/pixi": plan.pixi.read_bytes()} if plan.pixi else {}
    with reporter.phase("runtime", packed.stat().st_size) as meter:
        unpacked = relocatable.write_archive(
            packed, prefix, scratch / "runtime.tar.gz", added=added, meter=meter
        )
    return Runtime(
        source=f"environment {OWN_ENVIRONMENT}",
        python=plan.environment.stack.python or "",
        pixi=plan.pixi_version,
        bundler=__version__,
        glibc=plan.environment.glibc,
        unpacked_bytes=unpacked.size,
        inodes=unpacked.inodes,
    )


def _install_wheel(prefix: Path, wheel: Path, scratch: Path) -> None:
    """Put bundler's wheel into an environment; by name, so that no file says where it lay."""
    uv = find_uv()
    if uv is None:
        raise InstallError("there is no uv here, which puts bundler into its runtime", hint="pip install uv")
    command: list[str | Path] = [
        *(uv, "pip", "install", "--quiet", "--no-config", "--offline", "--no-deps", "--no-index"),
        *("--cache-dir", scratch / "uv", "--link-mode", "hardlink"),
        *("--find-links", wheel.parent, "--python", prefix / "bin" / "python"),
        "{}=={}".format(*wheel.name.split("-")[:2]),
    ]
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("UV_", "PYTHON", "VIRTUAL_"))
    }
    done = ask(command, variables=kept)
    if done.code != 0:
        raise InstallError(
            "bundler can't be installed into its own runtime",
            findings=done.last(),
            where=prefix,
        )
    # It also removes uv's notes of where and when it found the wheels.
    claim_for_pixi(prefix)


def _try_out(prefix: Path) -> None:
    """Start bundler in the runtime and import what the air-gapped host needs."""
    program = f"import bundler.cli.main, {', '.join(NEEDED)}"
    done = ask([prefix / "bin" / "python", "-I", "-B", "-c", program])
    if done.code != 0:
        raise InstallError(
            "bundler doesn't start in its own runtime",
            findings=done.last(3),
            hint=f"does the environment {OWN_ENVIRONMENT} have all of bundler's requirements?",
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _place(made: Path, out: Path) -> None:
    """Put the finished archive where it is wanted."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    partial.unlink(missing_ok=True)
    try:
        partial.hardlink_to(made)
    except OSError:
        shutil.copyfile(made, partial)
    partial.replace(out)


def _sweep(folder: Path) -> None:
    """Remove what a run that was killed left behind."""
    for path in folder.glob(".making-*"):
        if time.time() - path.stat().st_mtime > ABANDONED:
            shutil.rmtree(path, ignore_errors=True)


def _prune(folder: Path) -> None:
    """Keep the newest runtimes."""
    archives = sorted(folder.glob("*.tar.gz"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in archives[KEPT:]:
        path.with_suffix("").with_suffix(".json").unlink(missing_ok=True)
        path.unlink()


def install_script(runtime: Runtime, payload_bytes: int, names: Iterable[str] = ()) -> bytes:
    """Return ``install.sh`` for a bundle.

    :param runtime: what travels beside it.
    :param payload_bytes: bytes that unpacking the bundle writes.
    :param names: what it puts directly into the destination; one that a shell must quote is left out.
    """
    newest = max(_numbers(OLDEST_GLIBC), _numbers(runtime.glibc or OLDEST_GLIBC))
    text = template("install.sh").replace(
        f"\noldest_glibc={OLDEST_GLIBC}\n", f"\noldest_glibc={'.'.join(map(str, newest))}\n"
    )
    figures = {
        "runtime_kib": -(-(runtime.unpacked_bytes + runtime.inodes * 2048) // 1024),
        "payload_kib": -(-payload_bytes // 1024),
    }
    for name, value in figures.items():
        text = text.replace(f"\n{name}=0\n", f"\n{name}={value}\n")
    plain = " ".join(sorted({name for name in names if re.fullmatch(r"[A-Za-z0-9._+-]+", name)}))
    text = text.replace("\npayload_names=''\n", f"\npayload_names='{plain}'\n")
    return text.encode()
