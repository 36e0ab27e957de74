"""The steps: bundler's own commands on the real environment, then what it says to the real SGLang."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bundler.common.units import size_text
from bundler.errors import BundlerError, InterruptError
from tests.demo.run import has_pixi, tree_size
from tests.demo.shell import Shell, StepError
from tests.real import spoken
from tests.real.closure import ENVIRONMENT, FROM_CONDA, REPOSITORY, ClosureError
from tests.real.workspace import MissingPartError, find_python, make_real_workspace

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MODEL = "tiny-glm4-moe"
NEEDED = 28 * 10**9
"""Bytes of disk that a whole run takes: wheels, bundle, installation, and what uv unpacks meanwhile."""
CHECKED = ("import torch", "import sglang", "triton kernel", "all-reduce")
"""What ``bundler check`` must find good without a GPU too; sgl_kernel wants the driver's library."""
CHECK_FOUND = 12
DRIVER = "libcuda.so.1"

HEAD = f"""\
# A random model of GLM-4.7's kind, launched as manifests/GLM-4.7.toml launches that.
name = "{MODEL}"
served-name = "{MODEL}"

[source]
folder = "{MODEL}"

[requires]
gpus = [{{ count = 1, memory-gb = 80 }}, {{ count = 2, memory-gb = 80 }}]
min-compute-capability = "8.0"

[smoke]

"""


@dataclass
class Real:
    """Where everything is."""

    folder: Path
    python: str | None = None
    """The Python 3.12 that becomes a conda package."""
    shell: Shell = field(default_factory=Shell)

    @property
    def workspace(self) -> Path:
        return self.folder / "workspace"

    @property
    def store(self) -> Path:
        return self.workspace / ".pkg-cache"

    @property
    def manifest(self) -> Path:
        return self.folder / f"{MODEL}.toml"

    @property
    def bundle(self) -> Path:
        return self.folder / "bundles" / f"{MODEL}-{ENVIRONMENT}"

    @property
    def installed(self) -> Path:
        return self.folder / "installed"

    @property
    def prefix(self) -> Path:
        return self.installed / ".pixi" / "envs" / ENVIRONMENT


@dataclass(frozen=True)
class Step:
    """One step, done once: a file remembers it."""

    name: str
    work: Callable[[Real], None]
    made: Callable[[Real], Path] | None = None
    """What it made, to be weighed."""


def make(real: Real) -> None:
    """Make workspace, lock and model."""
    made = make_real_workspace(real.folder, find_python(real.python))
    wheels = made.wheels[ENVIRONMENT]
    extra = [wheel.name for wheel in wheels if wheel.name in FROM_CONDA]
    size = sum(wheel.size or 0 for wheel in wheels)
    real.shell.say(
        f"{len(wheels) - len(extra)} wheels as in pixi.lock, and {', '.join(extra)}: {size_text(size)}"
    )
    make_model_manifest(real.folder)


def make_model_manifest(folder: Path) -> None:
    """Make the tiny model, and its manifest with GLM-4.7's own launch."""
    from tests.support.tinymodel import make_model

    make_model(folder / MODEL)
    launch = (REPOSITORY / "manifests" / "GLM-4.7.toml").read_text().partition("[launch.flags]")
    (folder / f"{MODEL}.toml").write_text(HEAD + launch[1] + launch[2])


def plan(real: Real) -> None:
    """Say what the bundle needs."""
    words = ("-e", ENVIRONMENT, "--model", real.manifest)
    real.shell.bundler("plan", "-C", real.workspace, *words)


def fetch(real: Real) -> None:
    """Fill the store."""
    real.shell.bundler("fetch", "-C", real.workspace, "-e", ENVIRONMENT, "--model", real.manifest)


def rehearse(real: Real) -> None:
    """Install once with the network cut; what the tools cached goes, as an installation caches anew."""
    real.shell.bundler("rehearse", "-C", real.workspace, "-e", ENVIRONMENT)
    drop_caches(real.store)


def drop_caches(store: Path) -> None:
    """Remove what is in a store beside the artifacts, 10 GB of unpacked packages."""
    for path in store.iterdir():
        if path.is_dir() and path.name != "mirror":
            shutil.rmtree(path)


def pack(real: Real) -> None:
    """Write the bundle; it was rehearsed already."""
    words = (
        "-e",
        ENVIRONMENT,
        "--model",
        real.manifest,
        "--name",
        real.bundle.name,
        "-o",
        real.bundle.parent,
    )
    real.shell.bundler("pack", "-C", real.workspace, *words, "--no-rehearse")


def verify(real: Real) -> None:
    """Check every byte."""
    real.shell.bundler("verify", real.bundle)


def unpack(real: Real) -> None:
    """Unpack where there is no network."""
    real.shell.cut_off(real.shell.command, "unpack", "--no-install", real.bundle, real.installed)


def install_by_pixi(real: Real) -> None:
    """Install by pixi where there is no network; without a pixi, say so."""
    if not has_pixi():
        real.shell.say("(no pixi on PATH or in BUNDLER_PIXI: left out)")
        return
    install(real, "pixi")


def install_natively(real: Real) -> None:
    """Install by bundler's own installer where there is no network, anew."""
    install(real, "native")


def install(real: Real, installer: str) -> None:
    """Install anew; the caches are the installer's own and go first."""
    shutil.rmtree(real.installed / ".pixi", ignore_errors=True)
    drop_caches(real.installed / ".pkg-cache")
    real.shell.cut_off(real.shell.command, "install", "--installer", installer, real.installed)


def check(real: Real) -> None:
    """Check the environment from inside: without a GPU, all but what needs the driver's library.

    :raises StepError: a part failed that needs no GPU.
    """
    report = real.folder / "check.json"
    command = shlex.join([str(real.shell.command), "check", "-C", str(real.installed), "--json"])
    real.shell.run("sh", "-c", f"{command} > {shlex.quote(str(report))}", allowed=(CHECK_FOUND,))
    for one in json.loads(report.read_text())["checks"]:
        last = (one["seen"].strip().splitlines() or [""])[-1]
        real.shell.say(f"  {'ok  ' if one['passed'] else 'FAIL'} {one['name']}: {last}")
        if not one["passed"] and (one["name"] in CHECKED or DRIVER not in one["seen"]):
            raise StepError(f"{one['name']} failed: {last}")


def dry_run(real: Real) -> None:
    """Print the launch command."""
    real.shell.bundler("serve", "-C", real.installed, "--dry-run")


def flags(real: Real) -> None:
    """Have the real parser read each launch that the manifests lead to.

    :raises StepError: it refused one.
    """
    refused = spoken.refused_launches(real.prefix)
    for said in refused:
        real.shell.say(f"  refused: {said}")
    if refused:
        raise StepError(f"SGLang's parser refused {len(refused)} launches")
    real.shell.say(f"{len(spoken.launches(real.prefix))} launches parsed by the environment's own SGLang")


def variables(real: Real) -> None:
    """Find each variable that bundler sets in what reads it.

    :raises StepError: nothing of the environment reads one.
    """
    found = spoken.readers(real.prefix)
    for name, places in sorted(found.items()):
        real.shell.say(f"  {name}: {', '.join(places) or 'NOT FOUND'}")
    lost = sorted(name for name, places in found.items() if not places)
    if lost:
        raise StepError(f"nothing of the environment reads {', '.join(lost)}")


STEPS = (
    Step("make", make, lambda real: real.folder / "channel"),
    Step("plan", plan),
    Step("fetch", fetch, lambda real: real.store),
    Step("rehearse", rehearse),
    Step("pack", pack, lambda real: real.bundle),
    Step("verify", verify),
    Step("unpack", unpack, lambda real: real.installed),
    Step("install-pixi", install_by_pixi, lambda real: real.prefix),
    Step("install-native", install_natively, lambda real: real.prefix),
    Step("check", check),
    Step("dry-run", dry_run),
    Step("flags", flags),
    Step("variables", variables),
)


def run_real(real: Real, *, again: str | None = None) -> int:
    """Run the steps that aren't done; the first that fails ends it.

    :param again: from this step on they are done anew.
    :returns: the exit code.
    """
    real.folder.mkdir(parents=True, exist_ok=True)
    done = Done(real.folder / "steps.json")
    if again:
        done.forget([step.name for step in STEPS], again)
    code = 0
    try:
        _check_space(real, done)
        for step in STEPS:
            real.shell.title(f"{step.name}{' (done before)' if step.name in done.rows else ''}")
            if step.name not in done.rows:
                done.add(step, real)
    except (StepError, ClosureError, MissingPartError, BundlerError, RuntimeError) as problem:
        print(f"\ntests.real: {problem}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print("\ntests.real: interrupted; the same command goes on", file=sys.stderr)
        code = InterruptError.exit_code
    done.show()
    return code


def _check_space(real: Real, done: Done) -> None:
    free = shutil.disk_usage(real.folder).free
    if not done.rows and free < NEEDED:
        raise StepError(f"{real.folder} has {size_text(free)} free, and this takes {size_text(NEEDED)}")


class Done:
    """What is done, in a file: by step its seconds and the bytes of what it made."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, tuple[float, int]] = json.loads(path.read_text()) if path.exists() else {}

    def forget(self, names: list[str], first: str) -> None:
        """Forget a step and all after it."""
        for name in names[names.index(first) :]:
            self.rows.pop(name, None)
        self._write()

    def add(self, step: Step, real: Real) -> None:
        """Do a step and remember it."""
        began = time.monotonic()
        step.work(real)
        spent = time.monotonic() - began
        self.rows[step.name] = (round(spent, 1), tree_size(step.made(real)) if step.made else 0)
        self._write()
        seconds, size = self.rows[step.name]
        real.shell.say(f"[{step.name}: {seconds} s{f', {size_text(size)}' if size else ''}]")

    def show(self) -> None:
        """Print all as a table."""
        print()
        for step in STEPS:
            seconds, size = self.rows.get(step.name, (0.0, 0))
            told = f"{seconds:8.1f} s  {size_text(size) if size else '':>9}"
            print(f"  {step.name:16}{told if step.name in self.rows else '   not done'}")

    def _write(self) -> None:
        fresh = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        fresh.write_text(json.dumps(self.rows, indent=1))
        fresh.replace(self.path)
