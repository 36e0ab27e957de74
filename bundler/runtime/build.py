"""What travels to run bundler itself where no Python is: ``runtime.tar.gz``, and ``install.sh``.

The runtime is made of the workspace's environment ``bundler``. A workspace without one lends the interpreter
of an environment that is packed; bundler's requirements then come from the interpreter that runs now, without
those that only the online host needs.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bundler import __version__
from bundler.common.digest import sha256_of
from bundler.common.progress import SILENT
from bundler.errors import InputError, InstallError
from bundler.host.system_checks import OLDEST_GLIBC
from bundler.install.installer import Caches
from bundler.install.wheels import claim_for_pixi, find_uv
from bundler.lockfile import glibc_of_wheel
from bundler.manifest import Runtime
from bundler.runtime import relocatable
from bundler.runtime.launchers import template
from bundler.runtime.repack import own_wheel, repack, requirements
from bundler.workspace import LOCK, MANIFEST, OWN_ENVIRONMENT, prefix_of

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    "tqdm",
    "yaml",
    "zstandard",
)
"""Modules that the commands of the air-gapped host import; tried before the runtime travels."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a runtime is made of."""

    source: str
    environment: EnvironmentLock
    """What is installed: the whole environment, or its conda packages alone."""
    wheels: tuple[Path, ...]
    """What is installed on top; bundler's own wheel is the first."""
    pixi: Path | None
    """A pixi that is put in, where the environment has none."""
    pixi_version: str | None

    def key(self) -> str:
        """Return a digest of all inputs and of the tools that shape the bytes."""
        parts = [RECIPE, self.source, metadata.version("conda-pack"), zlib.ZLIB_RUNTIME_VERSION]
        parts += sorted(artifact.sha256 or artifact.url for artifact in self.environment.artifacts)
        parts += [f"{wheel.name} {sha256_of(wheel)}" for wheel in self.wheels]
        parts += [sha256_of(self.pixi)] if self.pixi else []
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]

    def glibc(self) -> str | None:
        """Return the newest glibc that the environment or a wheel asks for."""
        asked = [_numbers(self.environment.glibc)] if self.environment.glibc else []
        asked += [version for wheel in self.wheels if (version := glibc_of_wheel(wheel.name))]
        return ".".join(map(str, max(asked))) if asked else None


def build_runtime(
    workspace: Workspace,
    store: Store,
    out: Path,
    *,
    environments: Sequence[EnvironmentLock] = (),
    pixi: Path | None = None,
    reporter: Reporter = SILENT,
) -> Runtime:
    """Write ``runtime.tar.gz``, or take the one that was made of the same inputs before.

    :param workspace: where an environment ``bundler`` is looked for.
    :param store: holds the artifacts of the environment that the runtime is made of; nothing is downloaded.
    :param out: the archive's place; an older one is replaced.
    :param environments: the environments that are packed, one of which lends its interpreter where there is
        no environment ``bundler``.
    :param pixi: a pixi to put in where the environment has none; never looked for unasked.
    :returns: what the archive holds.
    :raises InputError: there is nothing to make a runtime of.
    :raises InstallError: it couldn't be made, or doesn't run.
    :raises DamagedError: a file of bundler or of its requirements was changed after its install.
    """
    folder = store.root / CACHE
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    # Inside the store: the packages are hard links out of its caches.
    with tempfile.TemporaryDirectory(prefix=".making-", dir=folder.absolute()) as name:
        scratch = Path(name)
        plan = _plan(workspace, environments, pixi, scratch)
        made = folder / f"{plan.key()}.tar.gz"
        facts = made.with_suffix("").with_suffix(".json")
        if not (made.is_file() and facts.is_file()):
            reporter.say(f"making the runtime of {plan.source}")
            runtime = _make(plan, workspace, store, scratch, reporter)
            (scratch / "runtime.tar.gz").replace(made)
            facts.write_bytes(msgspec.json.encode(runtime))
            _prune(folder)
        _place(made, out)
        return msgspec.json.decode(facts.read_bytes(), type=Runtime)


def _plan(
    workspace: Workspace, environments: Sequence[EnvironmentLock], pixi: Path | None, scratch: Path
) -> _Plan:
    """Decide what the runtime is made of, and make the wheels that go into it."""
    folder = scratch / "wheels"
    folder.mkdir()
    own = own_wheel(folder)
    if OWN_ENVIRONMENT in workspace.environments:
        environment = workspace.environments[OWN_ENVIRONMENT]
        source, wheels = f"environment {OWN_ENVIRONMENT}", [own]
    else:
        lender = _lender(workspace, environments)
        conda = tuple(artifact for artifact in lender.artifacts if artifact.kind == "conda")
        environment = dataclasses.replace(lender, artifacts=conda)
        source = f"the interpreter of environment {lender.name}"
        wheels = [own, *(repack(distribution, folder) for distribution in requirements())]
    version = environment.version_of("pixi")
    if version is None and pixi is not None:
        return _Plan(source, environment, tuple(wheels), pixi, _pixi_version(pixi))
    return _Plan(source, environment, tuple(wheels), None, version)


def _lender(workspace: Workspace, environments: Sequence[EnvironmentLock]) -> EnvironmentLock:
    """Return the environment whose interpreter fits the requirements that are installed here."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    for environment in environments:
        if any(one.kind == "conda" and one.name == "python" for one in environment.artifacts) and (
            environment.stack.python or ""
        ).startswith(f"{here}."):
            return environment
    have = (
        ", ".join(f"{one.name}: {one.stack.python or 'none'}" for one in environments)
        or "no environment is packed"
    )
    raise InputError(
        f"nothing here can carry bundler: pixi.toml has no environment {OWN_ENVIRONMENT}, and no packed "
        f"environment has the Python {here} that bundler runs in ({have})",
        where=workspace.lock_path,
        hint=f"add an environment {OWN_ENVIRONMENT} to pixi.toml as bundler's own repository has it",
    )


def _pixi_version(pixi: Path) -> str:
    """Ask a pixi for its version."""
    try:
        done = subprocess.run([pixi, "--version"], capture_output=True, text=True, timeout=60, check=False)
        said = done.stdout
    except (OSError, subprocess.TimeoutExpired) as problem:
        said = str(problem)
    if not (found := re.match(r"pixi (\d[\w.]*)", said)):
        raise InputError("this pixi doesn't say its version, so it can't travel", where=pixi)
    return found[1]


def _make(plan: _Plan, workspace: Workspace, store: Store, scratch: Path, reporter: Reporter) -> Runtime:
    """Install, pack and compress; the result is ``runtime.tar.gz`` in the scratch folder."""
    from bundler.install.native import NativeInstaller

    root = scratch / "root"
    root.mkdir()
    for path in (workspace.manifest_path, workspace.lock_path):
        shutil.copyfile(path, root / {workspace.manifest_path: MANIFEST, workspace.lock_path: LOCK}[path])
    installer = NativeInstaller.find(Caches.of_store(store.root.absolute()))
    installer.install(root, [plan.environment], store, reporter)
    prefix = prefix_of(root, plan.environment.name)
    _install_wheels(prefix, plan.wheels, scratch)
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
        source=plan.source,
        python=plan.environment.stack.python or "",
        pixi=plan.pixi_version,
        bundler=__version__,
        glibc=plan.glibc(),
        unpacked_bytes=unpacked.size,
        inodes=unpacked.inodes,
    )


def _install_wheels(prefix: Path, wheels: Sequence[Path], scratch: Path) -> None:
    """Put wheels into an environment; by name, so that no file says where they lay."""
    uv = find_uv()
    if uv is None:
        raise InstallError("there is no uv here, which puts bundler into its runtime", hint="pip install uv")
    names = ["{}=={}".format(*wheel.name.split("-")[:2]) for wheel in wheels]
    command = [
        *(uv, "pip", "install", "--quiet", "--no-config", "--offline", "--no-deps", "--no-index"),
        *("--cache-dir", scratch / "uv", "--link-mode", "hardlink"),
        *("--find-links", wheels[0].parent, "--python", prefix / "bin" / "python", *names),
    ]
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("UV_", "PYTHON", "VIRTUAL_"))
    }
    done = subprocess.run(list(map(str, command)), env=kept, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise InstallError(
            "bundler can't be installed into its own runtime",
            findings=done.stderr.strip().splitlines()[-8:],
            where=prefix,
        )
    # It also removes uv's notes of where and when it found the wheels.
    claim_for_pixi(prefix)


def _try_out(prefix: Path) -> None:
    """Start bundler in the runtime and import what the air-gapped host needs."""
    program = f"import bundler.cli.main, {', '.join(NEEDED)}"
    done = subprocess.run(
        [prefix / "bin" / "python", "-I", "-B", "-c", program], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise InstallError(
            "bundler doesn't start in its own runtime",
            findings=done.stderr.strip().splitlines()[-3:],
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


def install_script(runtime: Runtime, payload_bytes: int) -> bytes:
    """Return ``install.sh`` for a bundle.

    :param runtime: what travels beside it.
    :param payload_bytes: bytes that unpacking the bundle writes.
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
    return text.encode()
