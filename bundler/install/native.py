"""Install without pixi: conda packages by rattler, wheels by uv, both from the store, both by hash.

What results is what pixi makes of the same lock, so that ``pixi install --frozen`` afterwards finds
nothing to do.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from bundler.common.durable import sync_file_system, write_atomically
from bundler.errors import InstallError
from bundler.install.child import call
from bundler.install.conda_child import CondaTask
from bundler.install.explain import damaged_of, explain
from bundler.install.folder_channel import seed
from bundler.install.growth import counted
from bundler.install.installer import (
    Caches,
    clean_environment,
    one_at_a_time,
    require_artifacts,
    scratch_folder,
    sound_caches,
)
from bundler.install.mirror import LoopbackMirror
from bundler.install.program import run, to
from bundler.install.wheels import claim_for_pixi, command, find_uv, lay_out
from bundler.store import MIRROR
from bundler.workspace import LOCK, prefix_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bundler.common.progress import Meter, Reporter
    from bundler.store import Store
    from bundler.workspace import EnvironmentLock

MARK = "conda-meta/bundler"
"""In an environment: which locked artifacts it was finished with."""

BESIDE = {".gitignore": "*\n!config.toml\n", ".condapackageignore": ".pixi\n!.pixi/config.toml\n"}
"""What pixi writes into ``.pixi``."""
HISTORY = "// not relevant for pixi but for `conda run -p`"
"""What pixi writes into ``conda-meta/history``, whose presence makes a folder an environment for conda."""


class NativeInstaller:
    """Does pixi's work with pixi's own parts."""

    name = "native"

    def __init__(self, uv: Path, caches: Caches | None = None) -> None:
        """Keep the program, and the caches that aren't the installation's own."""
        self._uv = uv
        self._caches = caches

    @classmethod
    def find(cls, caches: Caches | None = None) -> NativeInstaller:
        """Return it, if what it needs is here.

        :raises InstallError: py-rattler or uv isn't.
        """
        uv = find_uv()
        absent = [name for name, here in (("py-rattler", find_spec("rattler")), ("uv", uv)) if not here]
        if uv is None or absent:
            raise InstallError(
                f"the native installer needs {' and '.join(absent)}",
                hint="install with pixi; or start with the bundle's install.sh, which brings both",
            )
        return cls(uv, caches)

    def install(
        self, root: Path, environments: Sequence[EnvironmentLock], store: Store, reporter: Reporter
    ) -> None:
        """Install environments, as :class:`bundler.install.installer.Installer` says."""
        root = root.absolute()
        caches = self._caches or Caches.of_installation(root)
        caches.join()
        waiting = [one for one in environments if not is_finished(root, one)]
        require_artifacts(waiting, store)
        with one_at_a_time(caches, reporter) as held, sound_caches(caches, reporter):
            for environment in environments:
                if is_finished(root, environment):
                    reporter.say(f"{environment.name}: already installed, nothing to do")
                    continue
                with (
                    reporter.phase(f"install {environment.name}", _size(environment, store)) as meter,
                    scratch_folder(caches) as scratch,
                ):
                    self._install(root, environment, store, _Way(caches, scratch, meter, held))

    def _install(self, root: Path, environment: EnvironmentLock, store: Store, way: _Way) -> None:
        prefix = prefix_of(root, environment.name)
        _clear(prefix)
        self._install_conda(root / LOCK, prefix, environment, store, way)
        wheels = [one for one in environment.artifacts if one.kind == "wheel"]
        if wheels:
            self._install_wheels(prefix, environment, store, way)
        _finish(root, prefix, environment)

    def _install_conda(
        self, lock: Path, prefix: Path, environment: EnvironmentLock, store: Store, way: _Way
    ) -> None:
        packages = [one for one in environment.artifacts if one.kind == "conda"]
        seed(packages, store, way.caches.conda)
        with LoopbackMirror(store.root / MIRROR, way.meter.advance) as mirror:
            task = CondaTask(
                lock=str(lock),
                environment=environment.name,
                platform=environment.platform,
                prefix=str(prefix),
                cache=str(way.caches.conda),
                mirrors=mirror.prefixes(packages, store),
            )
            variables = clean_environment(os.environ, way.scratch)
            module = "bundler.install.conda_child"
            count, ended = call(module, task, int, variables, way.scratch, way.meter, held=way.held)
            if count is None:
                damaged = damaged_of(ended, packages, store)
                raise explain("rattler", ended, prefix, missing=mirror.missing, damaged=damaged)
        way.meter.say(f"{environment.name}: {count} conda packages installed")

    def _install_wheels(self, prefix: Path, environment: EnvironmentLock, store: Store, way: _Way) -> None:
        wheels = [one for one in environment.artifacts if one.kind == "wheel"]
        links = way.caches.wheel_links
        requirements = lay_out(wheels, store, links, way.scratch)
        variables = clean_environment(os.environ, way.scratch)
        words = command(self._uv, _python_of(prefix, environment), requirements, links, way.caches.uv)
        # uv tells no progress where nobody sits at a terminal.
        with counted(way.meter, sum(store.path(one.url).stat().st_size for one in wheels)):
            ended = run(words, variables, way.scratch, to(way.meter), held=way.held)
            if ended.code != 0:
                raise explain("uv", ended, prefix, damaged=damaged_of(ended, wheels, store))
        claim_for_pixi(prefix)


@dataclass(frozen=True, slots=True)
class _Way:
    """What the steps of one environment share."""

    caches: Caches
    scratch: Path
    meter: Meter
    held: int
    """The lock that the programs inherit."""


def is_finished(root: Path, environment: EnvironmentLock) -> bool:
    """Say whether the native installer finished this very environment here."""
    mark = prefix_of(root, environment.name) / MARK
    try:
        return mark.read_bytes() == os.fsencode(_mark_text(root, environment))
    except OSError:
        return False


def _mark_text(root: Path, environment: EnvironmentLock) -> str:
    """Return what tells an environment from one of other artifacts or of another place."""
    pinned = sorted(f"{one.url} {one.pinned}" for one in environment.artifacts)
    digest = hashlib.sha256("\n".join(pinned).encode()).hexdigest()
    return f"native {digest} {prefix_of(root, environment.name)}\n"


def _python_of(prefix: Path, environment: EnvironmentLock) -> Path:
    """Return the environment's interpreter by the name that pixi writes into scripts: ``python3.12``.

    :raises InstallError: the environment has wheels and no Python.
    """
    short = ".".join((environment.stack.python or "").split(".")[:2])
    python = prefix / "bin" / f"python{short}"
    if not python.exists():
        raise InstallError(
            f"the environment {environment.name} has wheels and no Python to install them for", where=python
        )
    return python


def _size(environment: EnvironmentLock, store: Store) -> int:
    return sum(store.path(one.url).stat().st_size for one in environment.artifacts)


def _clear(prefix: Path) -> None:
    """Remove what an interrupted install, or an older lock, left.

    :raises InstallError: it can't be removed.
    """
    try:
        if prefix.is_symlink():
            prefix.unlink()
        elif prefix.exists():
            (prefix / MARK).unlink(missing_ok=True)
            shutil.rmtree(prefix)
    except OSError as problem:
        raise InstallError(
            f"the old environment can't be removed: {problem.strerror}",
            where=problem.filename or prefix,
            hint="end what runs from it, and remove the folder",
        ) from problem


def _finish(root: Path, prefix: Path, environment: EnvironmentLock) -> None:
    """Write what pixi writes beside an environment, and last, with all durable, the mark that it is whole."""
    for name, text in BESIDE.items():
        path = root / ".pixi" / name
        if not path.exists():
            path.write_text(text)
    (prefix / "conda-meta" / "history").write_text(HISTORY)
    (prefix / "conda-meta" / "pixi_env_prefix").write_text(str(prefix / "conda-meta"))
    sync_file_system(prefix)
    write_atomically(prefix / MARK, os.fsencode(_mark_text(root, environment)))
