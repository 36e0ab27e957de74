"""The demo's steps: what a user types, in the order of the work, on parts that are made on the spot."""

from __future__ import annotations

import os
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bundler.common.units import duration_text, size_text
from bundler.errors import InterruptError
from tests.demo import shown
from tests.demo.shell import Shell, StepError

if TYPE_CHECKING:
    from collections.abc import Callable

MODEL = "tiny-glm4-moe"
IMPORTS = "click, markupsafe, msgspec, tqdm, demo_greeting"
DOCTOR_FOUND = (12, 15)
"""Doctor's exit codes where it found something: that says something of this machine, not of the demo."""

MANIFEST = f"""\
# What the demo serves: as manifests/GLM-4.7.toml, small.
name = "{MODEL}"
description = "a random GLM-4-MoE model of 16.6 MB"

[source]
folder = "{MODEL}"

[launch.flags]
tool-call-parser = "glm47"
reasoning-parser = "glm45"
mem-fraction-static = 0.5
"""


@dataclass
class Demo:
    """Where everything is, and how the commands are run."""

    folder: Path
    python: str | None = None
    """An interpreter that has SGLang; then the model is served for real."""
    flags: tuple[str, ...] = ()
    """``--`` and SGLang's flags."""
    model: str = MODEL
    shell: Shell = field(default_factory=Shell)

    @property
    def workspace(self) -> Path:
        return self.folder / "workspace"

    @property
    def manifest(self) -> Path:
        return self.folder / f"{MODEL}.toml"

    @property
    def bundle(self) -> Path:
        return self.folder / "bundles" / f"{MODEL}-demo"

    @property
    def installed(self) -> Path:
        return self.folder / "installed"

    @property
    def from_nothing(self) -> Path:
        return self.folder / "from-nothing"

    @property
    def disk(self) -> Path:
        return self.folder / "second-disk"

    @property
    def sheet(self) -> Path:
        return self.folder / "transfer-sheet.html"

    @property
    def installer(self) -> tuple[str, ...]:
        """How to install: by pixi where there is one."""
        return () if has_pixi() else ("--installer", "native")

    @property
    def served(self) -> tuple[str | Path, ...]:
        """What is served, by which interpreter."""
        return ("-C", self.installed, *(("--python", self.python) if self.python else ()))

    @property
    def interpreter(self) -> Path:
        return self.installed / ".pixi" / "envs" / "default" / "bin" / "python"


def run_demo(demo: Demo) -> int:
    """Run every step; the first that fails ends it.

    :returns: the exit code.
    """
    start = time.monotonic()
    try:
        for title, step in STEPS:
            demo.shell.title(title)
            step(demo)
    except StepError as problem:
        print(f"\ndemo: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: interrupted; it begins anew the next time", file=sys.stderr)
        return InterruptError.exit_code
    _summary(demo, time.monotonic() - start)
    return 0


def make(demo: Demo) -> None:
    """Make the model, the channel and the workspace with its lock."""
    from tests.support.tinymodel import make_model
    from tests.support.workspace import DEFAULT, RUNTIME, make_workspace

    try:
        made = make_workspace(demo.folder, environments=(DEFAULT, RUNTIME))
    except RuntimeError as problem:
        raise StepError(
            f"{problem}\nThe demo takes its wheels from a package index: check the network; PIP_INDEX_URL "
            "names another index, SSL_CERT_FILE a proxy's certificates"
        ) from problem
    wheels = made.wheels["default"]
    demo.shell.say(f"{demo.workspace}: {len(made.packages)} conda packages, {len(wheels)} wheels, all real")
    demo.shell.say(f"  python {made.python_version}: this interpreter, as a conda package in {made.channel}")
    demo.shell.say("  " + ", ".join(f"{wheel.name} {wheel.version}" for wheel in wheels) + ": as uv resolved")
    model = make_model(demo.folder / MODEL)
    demo.manifest.write_text(MANIFEST)
    demo.shell.say(
        f"{model}: {size_text(tree_size(model))} in {len(list(model.glob('*.safetensors')))} shards"
    )


def pack(demo: Demo) -> None:
    """Write the bundle, anew."""
    shutil.rmtree(demo.bundle.parent, ignore_errors=True)
    words = ("-C", demo.workspace, "--env", "default", "--model", demo.manifest, "-o", demo.bundle.parent)
    demo.shell.bundler("pack", *words, "--parity", "1", "--volume-size", "30MB")


def verify(demo: Demo) -> None:
    """Check every byte, by bundler and by stock tools."""
    demo.shell.bundler("verify", demo.bundle)
    demo.shell.run("sha256sum", "--quiet", "-c", "SHA256SUMS", cwd=demo.bundle)
    if shutil.which("zstd") is None:
        demo.shell.say("(no zstd on this machine: `cat data-*.tar.zst | zstd -d | tar t` is left out)")
        return
    demo.shell.run("sh", "-c", "cat data-*.tar.zst | zstd -d | tar t | tail -n 5", cwd=demo.bundle)


def inspect(demo: Demo) -> None:
    """Say what the bundle holds and needs."""
    demo.shell.bundler("inspect", demo.bundle)


def unpack(demo: Demo) -> None:
    """Unpack and install, anew, where there is no network."""
    shutil.rmtree(demo.installed, ignore_errors=True)
    demo.shell.cut_off(demo.shell.command, "unpack", demo.bundle, demo.installed, *demo.installer)
    demo.shell.bundler("verify", demo.installed)


def install_from_nothing(demo: Demo) -> None:
    """Do the same by ``install.sh`` alone, which brings Python and bundler along."""
    shutil.rmtree(demo.from_nothing, ignore_errors=True)
    bare = ("env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", f"HOME={Path.home()}")
    demo.shell.cut_off(*bare, "sh", demo.bundle / "install.sh", demo.from_nothing)
    demo.shell.run(*bare, demo.from_nothing / "bin" / "bundler", "verify", demo.from_nothing)


def use(demo: Demo) -> None:
    """Import from the installed environment."""
    words = f"import sys, {IMPORTS}; print(sys.version.split()[0], 'from', sys.prefix); demo_greeting.main()"
    demo.shell.run(demo.interpreter, "-c", words)


def doctor(demo: Demo) -> None:
    """Compare this host with what the model needs; here that decides nothing."""
    if not shown.has_gpu():
        demo.shell.say("(no NVIDIA driver on this machine: `bundler doctor` is for a GPU host)")
        return
    found = demo.shell.bundler("doctor", *demo.served, *demo.flags, allowed=DOCTOR_FOUND)
    if found:
        demo.shell.say("(what failed is this machine's: to serve takes GPUs and SGLang; the demo goes on)")


def launch(demo: Demo) -> None:
    """Print the launch command; with an interpreter that has SGLang, serve and ask."""
    demo.shell.bundler("serve", *demo.served, "--dry-run", *demo.flags)
    if demo.python:
        demo.shell.bundler("serve", *demo.served, "--detach", *demo.flags)
        try:
            demo.shell.bundler("smoke", "-C", demo.installed)
        finally:
            demo.shell.bundler("stop", "-C", demo.installed)


STEPS: tuple[tuple[str, Callable[[Demo], None]], ...] = (
    ("a workspace with a real lock, and a model", make),
    ("on the host with a network: pack", pack),
    ("check the bundle", verify),
    ("what is in it", inspect),
    ("on the host without a network: unpack and install", unpack),
    ("the same where bundler isn't yet: install.sh brings it", install_from_nothing),
    ("use the installed environment", use),
    ("can this host serve it?", doctor),
    ("launch", launch),
    ("a disk flips a bit: found, and mended", shown.damage),
    ("a kill amid the work: the same command goes on", shown.kill),
    ("whose bundle it is: a signature", shown.sign),
    ("a second disk, read back from it", shown.second_disk),
    ("months later: one shard changed, and back again", shown.update),
    ("the sheet that is signed before the disk leaves", shown.sheet),
)


def has_pixi() -> bool:
    """Return whether bundler will find a pixi to install with."""
    return bool(os.environ.get("BUNDLER_PIXI") or shutil.which("pixi"))


def tree_size(folder: Path) -> int:
    """Return the bytes of all files below a folder, hard links counted once."""
    seen = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            status = path.stat()
            seen[status.st_dev, status.st_ino] = status.st_size
    return sum(seen.values())


def _summary(demo: Demo, seconds: float) -> None:
    demo.shell.title("what was shown")
    for step, spent in demo.shell.spent.items():
        print(f"  {step:60} {spent:5.1f} s")
    rows = (
        (demo.workspace, "pixi.toml, pixi.lock and the store .pkg-cache"),
        (demo.folder / MODEL, "the model"),
        (demo.bundle, "the bundle, with parity and a signature"),
        (demo.bundle.parent / "next", "what the update carried"),
        (demo.disk, "the second disk"),
        (demo.installed, "the installation, two generations of it"),
        (demo.from_nothing, "the one that install.sh made, with bundler's own runtime"),
        (demo.sheet, "the transfer sheet"),
    )
    print("\nwhat lies where")
    for path, what in rows:
        size = path.stat().st_size if path.is_file() else tree_size(path)
        print(f"  {path!s:36} {size_text(size):>8}  {what}")
    print(f"\ndone in {duration_text(seconds)}; again: make demo; away with it: rm -r {demo.folder}")
