"""What an installer is: from a workspace and its store to environments under ``.pixi/envs``.

Two stand behind one interface: pixi itself, and the native one for hosts where no pixi can be had. What the
second makes is what the first would have made.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from packaging.version import Version

from bundler.common.durable import make_folder, sync_file_system, write_atomically
from bundler.errors import InstallError
from bundler.generations import home_of
from bundler.installation import CACHE
from bundler.platforms import cuda_of
from bundler.store import MIRROR, REFILL

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bundler.artifact import Artifact
    from bundler.common.progress import Reporter
    from bundler.store import Store
    from bundler.workspace import EnvironmentLock

OVERRIDE_CUDA = "CONDA_OVERRIDE_CUDA"
LOCK_FILE = ".bundler-install.lock"
UNSYNCED = ".bundler-install-under-way"
"""Beside the caches: the start of the machine in which they were written to and not synced yet."""
SCRATCH = ".bundler-install-scratch-"
WHEEL_LINKS = ".bundler-wheels"

InstallerWord = Literal["pixi", "native", "auto"]
"""``auto``: pixi where a fit one is found, else native."""

KEPT_VARIABLES = frozenset(
    {
        *("PATH", "TMPDIR", "TEMP", "TMP", "USER", "LOGNAME", "SHELL"),
        *("LANG", "LANGUAGE", "TZ", "TERM", "COLORTERM", "COLUMNS", "LINES"),
        *("NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "FORCE_COLOR"),
        *(OVERRIDE_CUDA, "RUST_LOG", "RUST_BACKTRACE", "RAYON_NUM_THREADS", "TOKIO_WORKER_THREADS"),
    }
)
"""All that an installer sees of the caller's variables, besides ``LC_*``: neither configuration nor proxies,
tokens, indexes or another environment."""


@dataclass(frozen=True, slots=True)
class Caches:
    """Where the installers keep what they unpack: on the environments' file system, which hard links it."""

    pixi: Path
    """pixi's root: ``pkgs`` and ``uv-cache`` lie in it."""
    conda: Path
    """rattler's package cache, used by the native installer."""
    uv: Path
    """uv's cache, used by the native installer."""

    @classmethod
    def of_installation(cls, root: Path) -> Caches:
        """Return an installation's caches, which both installers and all generations share."""
        pixi = home_of(root) / CACHE / "pixi"
        return cls(pixi=pixi, conda=pixi / "pkgs", uv=pixi / "uv-cache")

    @classmethod
    def of_store(cls, store: Path) -> Caches:
        """Return the caches in the layout that the team's variables name, under ``.pkg-cache``."""
        return cls(pixi=store / "pixi", conda=store / "conda" / "rattler" / "pkgs", uv=store / "pypi" / "uv")

    @property
    def wheel_links(self) -> Path:
        """The folder in which uv finds an environment's wheels; only inside :func:`one_at_a_time`."""
        return self.pixi.parent / WHEEL_LINKS

    def join(self) -> None:
        """Make the folders, and let pixi's be links to the others where those lie elsewhere.

        So a package that pixi unpacked is there for rattler and uv too, and lies on the disk once. What pixi
        has filled already stays as it is.
        """
        for folder in (self.pixi, self.conda, self.uv):
            make_folder(folder)
        for name, shared in (("pkgs", self.conda), ("uv-cache", self.uv)):
            link = self.pixi / name
            if shared.parent != self.pixi and not link.exists():
                link.unlink(missing_ok=True)
                link.symlink_to(os.path.relpath(shared, self.pixi))


class Installer(Protocol):
    """Makes environments out of the lock and the store, without a network."""

    @property
    def name(self) -> str:
        """``pixi 0.77.0`` or ``native``, as the receipt says it."""

    def install(
        self, root: Path, environments: Sequence[EnvironmentLock], store: Store, reporter: Reporter
    ) -> None:
        """Install environments into ``root/.pixi/envs``.

        Interrupted or failed, the same call goes on where it stopped; over finished environments it has
        nothing to do.

        :param root: a folder with pixi's manifest and pixi.lock, which stay as they are.
        :raises InstallError: an artifact is missing or damaged, the disk is full, or the lock can't be read.
        """


def clean_environment(base: Mapping[str, str], home: Path) -> dict[str, str]:
    """Return the variables for an installer: few of the caller's, and an empty home.

    :param base: the caller's variables.
    :param home: a folder of its own, so that no configuration, netrc or token file is found.
    """
    kept = {key: value for key, value in base.items() if key in KEPT_VARIABLES or key.startswith("LC_")}
    kept.setdefault("PATH", os.defpath)
    return kept | {"HOME": str(home), "NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}


def cuda_override(environments: Sequence[EnvironmentLock], base: Mapping[str, str]) -> dict[str, str]:
    """Return the variable that names the CUDA version an installer is to take for the host's.

    A rehearsal's host may have no GPU, and what the lock's platform was solved for is known, or what its
    records ask: so those that want ``__cuda`` install there, too. The caller's own word goes before; a
    host's driver is doctor's to judge.
    """
    if word := base.get(OVERRIDE_CUDA):
        return {OVERRIDE_CUDA: word}
    stated = [version for one in environments if (version := cuda_of(one.virtual_packages))]
    if not stated and any(one.other_platforms for one in environments):
        # As if there were no GPU: else pixi takes another of the lock's platforms, one that wants CUDA.
        return {OVERRIDE_CUDA: ""}
    wanted = stated or [one.least_cuda for one in environments if one.least_cuda]
    return {OVERRIDE_CUDA: max(wanted, key=Version)} if wanted else {}


@contextmanager
def one_at_a_time(caches: Caches, reporter: Reporter) -> Iterator[int]:
    """Keep a second install with the same caches waiting, also for the children of one that was killed.

    :returns: a file descriptor; the lock is held as long as any process has it open, so children inherit it.
    """
    folder = caches.pixi.parent
    make_folder(folder)
    lock = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            reporter.say("another install is under way here: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)


@contextmanager
def sound_caches(caches: Caches, reporter: Reporter) -> Iterator[None]:
    """Empty caches that an install under way at a power cut left; only inside :func:`one_at_a_time`.

    rattler and uv take what they unpacked for whole by its name, and sync nothing. So a note lies beside the
    caches until all is synced. They mend by themselves what a killed process left: it is another start of
    the machine that tells.
    """
    note, boot = caches.pixi.parent / UNSYNCED, boot_id()
    try:
        if note.read_text() != boot:
            reporter.say("the machine stopped during an earlier install: what it unpacked is unpacked again")
            pixis = (caches.pixi / "pkgs", caches.pixi / "uv-cache")
            for folder in {one.resolve() for one in (caches.conda, caches.uv, *pixis) if one.exists()}:
                shutil.rmtree(folder)
                make_folder(folder)
    except FileNotFoundError:
        pass
    write_atomically(note, boot.encode())
    yield
    sync_file_system(caches.pixi)
    note.unlink()


def boot_id() -> str:
    """Return what tells one start of the machine from another."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@contextmanager
def scratch_folder(caches: Caches) -> Iterator[Path]:
    """Make a folder beside the caches for one install, and remove it; only inside :func:`one_at_a_time`."""
    folder = caches.pixi.parent
    for left in folder.glob(f"{SCRATCH}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=folder, ignore_cleanup_errors=True) as made:
        yield Path(made)


def require_artifacts(environments: Sequence[EnvironmentLock], store: Store) -> list[Artifact]:
    """Return the artifacts of environments, each once, all of which are in the store.

    :raises InstallError: some aren't; all of them are named.
    """
    artifacts = list({one.url: one for environment in environments for one in environment.artifacts}.values())
    absent = [one for one in artifacts if not store.has(one)]
    if absent and not (store.root / MIRROR).is_dir():
        raise InstallError(
            "the store was removed: there is nothing to install from", where=store.root, hint=REFILL
        )
    if absent:
        raise InstallError(
            f"{len(absent)} of {len(artifacts)} artifacts of the lock are not in the store, or not whole",
            findings=[f"{one.label}: {store.relative(one.url)}" for one in absent],
            where=store.root,
            hint=REFILL,
        )
    return artifacts
