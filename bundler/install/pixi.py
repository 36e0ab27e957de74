"""Install with pixi itself: on the unmodified lock, from the store, by way of the loopback mirror."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bundler.common.ask import ask
from bundler.errors import InstallError
from bundler.install.explain import damaged_of, explain
from bundler.install.folder_channel import seed
from bundler.install.installer import (
    OVERRIDE_CUDA,
    Caches,
    clean_environment,
    cuda_override,
    one_at_a_time,
    require_artifacts,
    scratch_folder,
    sound_caches,
)
from bundler.install.mirror import LoopbackMirror
from bundler.install.program import run, to
from bundler.pixi_manifest import PIXI, find_manifest
from bundler.platforms import CUDA, CUDA_ARCH, pixis_choice
from bundler.store import MIRROR
from bundler.workspace import LOCK, prefix_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bundler.artifact import Artifact
    from bundler.common.progress import Reporter
    from bundler.store import Store
    from bundler.workspace import EnvironmentLock

OLDEST = (0, 71)
"""The first pixi that checks the hashes of wheels."""
NEWEST_TRIED = (0, 77)
"""The newest pixi that this was tried with; it reads locks up to :data:`LOCK_VERSION`."""
MADE_AT = "conda-meta/pixi_env_prefix"
"""In an environment: the place of its ``conda-meta`` when it was made, in pixi's own words."""
LOCK_VERSION = 7
"""The newest lock that every accepted pixi reads."""


@dataclass(frozen=True, slots=True)
class Pixi:
    """A pixi program."""

    path: Path
    version: tuple[int, ...]

    @property
    def version_text(self) -> str:
        """``0.77.0``."""
        return ".".join(map(str, self.version))


def find_pixi(root: Path | None = None) -> Pixi:
    """Return the pixi to install with.

    ``BUNDLER_PIXI`` comes first, then the installation's own, the one beside this Python, and the one on
    ``PATH``.

    :param root: the installation.
    :raises InstallError: none is found, it doesn't run, or it is older than :data:`OLDEST`.
    """
    named = os.environ.get("BUNDLER_PIXI")
    places = [Path(named)] if named else _usual_places(root)
    path = next((place for place in places if place.is_file() and os.access(place, os.X_OK)), None)
    if path is None:
        raise InstallError(
            "BUNDLER_PIXI names no program" if named else "no pixi is here",
            where=named,
            hint="name one: BUNDLER_PIXI=/path/to/pixi; or install natively: --installer native",
        )
    pixi = Pixi(path, _version_of(path))
    if pixi.version < OLDEST:
        raise InstallError(
            f"pixi {pixi.version_text} is too old: it doesn't check the hashes of wheels",
            where=path,
            hint=f"pixi {OLDEST[0]}.{OLDEST[1]} or newer does; or install natively: --installer native",
        )
    return pixi


def _usual_places(root: Path | None) -> list[Path]:
    places = [root / "runtime" / "bin" / "pixi"] if root else []
    places.append(Path(sys.executable).parent / "pixi")
    on_path = shutil.which("pixi")
    return [*places, Path(on_path)] if on_path else places


def _version_of(path: Path) -> tuple[int, ...]:
    """Ask a pixi for its version."""
    with tempfile.TemporaryDirectory(prefix="bundler-pixi-") as home:
        try:
            variables = clean_environment(os.environ, Path(home))
            done = ask([path, "--version"], seconds=60, variables=variables)
            said = (done.out + done.err).strip()
        except OSError as problem:
            said = str(problem)
    match = re.match(r"pixi (\d+)\.(\d+)\.(\d+)", said)
    if match is None:
        raise InstallError(
            f"this pixi doesn't say its version: {said.splitlines()[0] if said else 'no answer'}",
            where=path,
            hint="name another: BUNDLER_PIXI=/path/to/pixi; or install natively: --installer native",
        )
    return tuple(map(int, match.groups()))


class PixiInstaller:
    """Runs ``pixi install --frozen``."""

    def __init__(self, pixi: Pixi, caches: Caches | None = None) -> None:
        """Keep the program, and the caches that aren't the installation's own."""
        self.pixi = pixi
        self._caches = caches

    @property
    def name(self) -> str:
        """``pixi 0.77.0``."""
        return f"pixi {self.pixi.version_text}"

    def install(
        self, root: Path, environments: Sequence[EnvironmentLock], store: Store, reporter: Reporter
    ) -> None:
        """Install environments, as :class:`bundler.install.installer.Installer` says."""
        root = root.absolute()
        caches = self._caches or Caches.of_installation(root)
        caches.join()
        artifacts = _artifacts(environments, store)
        names = [environment.name for environment in environments]
        manifest = find_manifest(root) or root / PIXI
        self._check_lock_version(root / LOCK)
        total = sum(store.path(one.url).stat().st_size for one in artifacts if store.has(one))
        with (
            one_at_a_time(caches, reporter) as held,
            sound_caches(caches, reporter),
            reporter.phase(f"install {', '.join(names)}", total) as meter,
            LoopbackMirror(store.root / MIRROR, meter.advance) as mirror,
            unchanged(root / LOCK, manifest),
            workspace_configuration_aside(root),
            scratch_folder(caches) as home,
            moved_aside([prefix_of(root, name) for name in names], root, reporter),
        ):
            seed(artifacts, store, caches.pixi / "pkgs")
            configuration = home / "config.toml"
            configuration.write_text(configuration_text(mirror.prefixes(artifacts, store)))
            variables = self._environment(caches, home, configuration)
            variables |= cuda_override(environments, os.environ)
            for command in self._commands(manifest, environments, variables):
                ended = run(command, variables, root, to(meter), held=held)
                if ended.code != 0:
                    damaged = damaged_of(ended, artifacts, store)
                    raise explain("pixi install", ended, root, missing=mirror.missing, damaged=damaged)

    def _check_lock_version(self, lock: Path) -> None:
        """Say before the install that the lock is too new for this pixi.

        :raises InstallError: it is.
        """
        with lock.open("rb") as file:
            match = re.match(rb"\s*version:\s*(\d+)", file.read(4096))
        version = int(match[1]) if match else 0
        if version > LOCK_VERSION and self.pixi.version[:2] <= NEWEST_TRIED:
            raise InstallError(
                f"pixi {self.pixi.version_text} can't read a lock of version {version}",
                where=lock,
                hint="name a newer pixi: BUNDLER_PIXI=/path/to/pixi",
            )

    def _environment(self, caches: Caches, home: Path, configuration: Path) -> dict[str, str]:
        return clean_environment(os.environ, home) | {
            "PIXI_CACHE_DIR": str(caches.pixi),
            "PIXI_CONFIG_FILE": str(configuration),
            "PIXI_HOME": str(home / ".pixi"),
            "PIXI_NO_PROGRESS": "true",
        }

    def _commands(
        self, manifest: Path, environments: Sequence[EnvironmentLock], variables: Mapping[str, str]
    ) -> Iterator[list[str]]:
        """Yield one call for all environments, but for those whose platform pixi must be told."""
        groups: dict[tuple[str, ...], list[str]] = {}
        for one in environments:
            word = platform_word(one, variables.get(OVERRIDE_CUDA, ""))
            groups.setdefault(("--platform", word) if word else (), []).append(one.name)
        for words, names in groups.items():
            chosen = [word for name in names for word in ("-e", name)]
            start = [str(self.pixi.path), "install", "--frozen", "--manifest-path", str(manifest)]
            yield [*start, *words, *chosen]


def platform_word(environment: EnvironmentLock, cuda: str) -> str | None:
    """Return the manifest's name of the platform to install where pixi might take another by itself.

    :param cuda: the version that pixi is told to be the host's; empty: it has none.
    """
    carried = next((one for one in environment.candidates if one.name == environment.platform), None)
    # What GPUs the host has isn't asked here: none, or newer ones than any platform wants.
    hosts = ({CUDA: cuda, CUDA_ARCH: capability} for capability in ("", "999"))
    sure = all(pixis_choice(environment.candidates, host) == carried for host in hosts)
    return None if carried is None or sure else carried.declared


def _artifacts(environments: Sequence[EnvironmentLock], store: Store) -> list[Artifact]:
    """Return what the environments are made of; a store that was pruned isn't asked, pixi's cache may do.

    :raises InstallError: the store is there and lacks some of it.
    """
    if (store.root / MIRROR).is_dir():
        return require_artifacts(environments, store)
    return [one for environment in environments for one in environment.artifacts]


def configuration_text(mirrors: Mapping[str, str]) -> str:
    """Return pixi's configuration: one mirror for each origin of the lock, and nothing from elsewhere."""
    # A JSON string is a TOML string, as long as it is ASCII.
    lines = [f"{json.dumps(origin)} = [{json.dumps(target)}]" for origin, target in sorted(mirrors.items())]
    return "\n".join(["detached-environments = false", "", "[mirrors]", *lines, ""])


@contextmanager
def workspace_configuration_aside(root: Path) -> Iterator[None]:
    """Put ``.pixi/config.toml`` aside for the time of an install.

    pixi lays it over every other configuration, so a mirror or a proxy in it would win over the loopback
    mirror. After a crash the next install puts it back.
    """
    own = root / ".pixi" / "config.toml"
    aside = own.with_name("config.toml.aside")
    if own.exists():
        own.replace(aside)
    try:
        yield
    finally:
        if aside.exists():
            aside.replace(own)


@contextmanager
def moved_aside(prefixes: Sequence[Path], root: Path, reporter: Reporter) -> Iterator[None]:
    """Put environments aside that were made at another path, so that they are made anew.

    pixi leaves them as they are, and the scripts in them start an interpreter that isn't there any more.
    Where the install fails, they are put back: most of them works still.
    """
    places = {prefix: root / ".pixi" / f"moved-{prefix.name}" for prefix in prefixes}
    aside = {prefix: place for prefix, place in places.items() if _was_moved(prefix)}
    for prefix, place in aside.items():
        reporter.say(f"{prefix.name}: made at another path; it is installed anew")
        shutil.rmtree(place, ignore_errors=True)
        prefix.replace(place)
    try:
        yield
    except BaseException:
        for prefix, place in aside.items():
            shutil.rmtree(prefix, ignore_errors=True)
            place.replace(prefix)
        raise
    # All of them: an install that was killed may have left its own.
    for place in places.values():
        shutil.rmtree(place, ignore_errors=True)


def _was_moved(prefix: Path) -> bool:
    """Whether an environment says that it was made elsewhere."""
    try:
        made_at = Path((prefix / MADE_AT).read_text())
        return made_at.resolve() != (prefix / "conda-meta").resolve()
    except (OSError, UnicodeError):
        return False


@contextmanager
def unchanged(*paths: Path) -> Iterator[None]:
    """Make sure that files are the same, byte for byte, when the block ends.

    :raises InstallError: one was changed; it is put back.
    """
    before = {path: path.read_bytes() for path in paths}
    yield
    changed = [path for path, data in before.items() if not path.is_file() or path.read_bytes() != data]
    for path in changed:
        path.write_bytes(before[path])
    if changed:
        raise InstallError(
            "pixi changed " + " and ".join(path.name for path in changed) + "; the bundle's own was put back",
            where=changed[0],
            hint="this pixi doesn't leave a frozen lock alone: name another with BUNDLER_PIXI",
        )
