"""An installation: the folder that ``unpack`` makes and ``serve`` runs from, and its receipt.

::

    DEST/
      pixi.toml pixi.lock        the workspace, unmodified; or pyproject.toml in pixi.toml's place
      .pkg-cache/mirror/…        the store
      .pixi/envs/ENV/            the environments, made by the installer
      weights/NAME/…             the models
      bin/ runtime/              bundler and pixi themselves, where install.sh brought them
      .bundler/
        receipt.json             what was checked and installed
        bundles/SHA256.json      the manifest of each bundle that was unpacked
        waiting.json             which volumes a bundle that is unpacked in part waits for
        journal  partial/        how far the last unpack is, and its files under way
        cache/                   writable caches of pixi and of the server's kernels
        run/                     the detached server: its state and its log
        current  generations/    which generation counts, and those that updates made
"""

from __future__ import annotations

import os
import shlex
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from bundler import manifest as manifests
from bundler.common.broken import BROKEN_JSON
from bundler.common.durable import holds_file, read_plain, write_atomically
from bundler.errors import DamagedError, DestinationError, InputError, UnknownNameError
from bundler.generations import current_root, home_of
from bundler.provenance import Provenance
from bundler.store import MIRROR
from bundler.store import NAME as STORE
from bundler.workspace import prefix_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bundler.manifest import Entry, Environment, Manifest, Model

T = TypeVar("T")

STATE = ".bundler"
RECEIPT = f"{STATE}/receipt.json"
BUNDLES = f"{STATE}/bundles"
WAITING = f"{STATE}/waiting.json"
JOURNAL = f"{STATE}/journal"
PARTIAL = f"{STATE}/partial"
CACHE = f"{STATE}/cache"
RUN = f"{STATE}/run"
VOLUMES = f"{STATE}/volumes"
"""Volumes that were kept for other hosts."""
ARTIFACTS = f"{STORE}/{MIRROR}"
WEIGHTS = "weights"

HOME_VARIABLE = "BUNDLER_HOME"
"""The variable that names the installation, which an installation's own ``bin/bundler`` sets."""

OWN_VARIABLE = "BUNDLER_INSTALLATION"
"""The variable by which an installation's own ``bin/bundler`` says whose it is."""
UNNAMED = Path()
"""Stands for a folder that nobody named; one that was is absolute."""

RESERVED = frozenset({STATE, ".pixi", "bin", "runtime"})
"""First path components that a bundle's tree must not hold: the installation makes them itself."""

TRIED = ".bundler-try-"
"""What the name of a folder begins with in which a file system is tried; the process's number follows."""


class SeenFile(msgspec.Struct, frozen=True, array_like=True):
    """A file as it was when it was unpacked, as a row: what the quick check compares."""

    path: str
    size: int
    mtime_ns: int
    sha256: str


class UnpackedBundle(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one bundle's way in here."""

    name: str
    manifest_sha256: str
    bundler: str
    """The version that unpacked it."""
    finished: str
    """UTC, ISO 8601."""
    checked: str
    """What was compared with what: said truthfully, for the auditor."""
    provenance: Provenance | None = None
    """Who made the bundle, as far as it was checked; ``None``: by a bundler that asked for nothing."""
    allowed_launch: tuple[str, ...] = ()
    """Flags and variables that its models set by the user's ``--allow-launch`` alone."""
    gone: tuple[str, ...] = ()
    """Files and folders of its tree, and environments' prefixes, that count no more: they were removed, or
    an update put others in their place."""


class InstalledEnvironment(msgspec.Struct, frozen=True, kw_only=True):
    """An environment that was installed here."""

    name: str
    installer: str
    """``pixi 0.77.0`` or ``native``."""
    finished: str
    """UTC, ISO 8601."""
    versions: dict[str, str] = {}
    """What the sanity check found: ``torch``, ``sglang``, ``torch.version.cuda``."""


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What was checked at unpack, by which version, when, with which signature."""

    format: int = 1
    bundles: tuple[UnpackedBundle, ...] = ()
    environments: tuple[InstalledEnvironment, ...] = ()
    files: tuple[SeenFile, ...] = ()


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle that is unpacked in part."""

    bundle: str
    volumes: tuple[str, ...]
    """Those that are needed yet."""


class Installation:
    """A folder with a receipt."""

    def __init__(self, root: Path, *, follow: bool = True) -> None:
        """Open an installation.

        :param root: its own folder, or one of its generations'.
        :param follow: whether of its own folder the generation is meant that counts, not the first.
        :raises InputError: there is no receipt, or it can't be read.
        """
        root = current_root(root) if follow else root
        self.root = root
        """The generation's folder."""
        path = root / RECEIPT
        try:
            self.receipt = msgspec.json.decode(read_plain(path), type=Receipt)
        except FileNotFoundError as problem:
            waiting = waiting_of(root)
            raise InputError(
                "this is not a finished installation: it has no receipt",
                where=root,
                findings=[f"waits for {name}" for name in waiting.volumes] if waiting else (),
                hint="finish it with: bundler unpack BUNDLE " + shlex.quote(str(root)),
            ) from problem
        except (OSError, *BROKEN_JSON) as problem:
            raise InputError(f"the receipt can't be read: {problem}", where=path) from problem
        self._manifests: list[Manifest] | None = None

    @property
    def manifests(self) -> list[Manifest]:
        """The manifest of each bundle that was unpacked here, oldest first."""
        if self._manifests is None:
            self._manifests = [
                read_kept(self.root / BUNDLES / f"{one.manifest_sha256}.json") for one in self.receipt.bundles
            ]
        return self._manifests

    @property
    def home(self) -> Path:
        """The installation's own folder, whatever generation this is."""
        return home_of(self.root)

    def _counting(self) -> Iterator[tuple[Manifest, tuple[str, ...]]]:
        """Yield each bundle's manifest with what of it counts no more."""
        yield from zip(self.manifests, (one.gone for one in self.receipt.bundles), strict=True)

    @property
    def entries(self) -> dict[str, Entry]:
        """What the bundles brought here, by path; a later bundle's wins."""
        return {
            entry.path: entry
            for one, gone in self._counting()
            for entry in one.tree
            if counts(entry.path, gone)
        }

    @property
    def allowed_launch(self) -> frozenset[str]:
        """The flags and variables that the user allowed the models' launches at unpack."""
        return frozenset(name for one in self.receipt.bundles for name in one.allowed_launch)

    @property
    def environments(self) -> dict[str, Environment]:
        """The environments by name; a later bundle's wins."""
        return {
            environment.name: environment
            for one, gone in self._counting()
            for environment in one.environments
            if counts(environment_path(environment.name), gone)
        }

    @property
    def models(self) -> dict[str, Model]:
        """The models by name; a later bundle's wins."""
        return {
            model.spec.name: model
            for one, gone in self._counting()
            for model in one.models
            if counts(model.path, gone)
        }

    def environment(self, name: str | None) -> Environment:
        """Return the environment of a name or alias, or the only one.

        :raises UnknownNameError: there is none of that name, or several to choose from.
        """
        return _choose(self.environments, name, "environment", _environment_words, self.root)

    def model(self, name: str | None) -> Model:
        """Return the model of a name or alias, or the only one.

        :raises UnknownNameError: there is none of that name, or several to choose from.
        """
        return _choose(self.models, name, "model", _model_words, self.root)

    @property
    def store_pruned(self) -> bool:
        """Whether the store was removed on purpose: it isn't there, and the receipt names no file of it."""
        folder = f"{ARTIFACTS}/"
        named = any(file.path.startswith(folder) for file in self.receipt.files)
        return not named and not (self.root / ARTIFACTS).exists()

    def prefix(self, environment: str) -> Path:
        """Return the folder an environment is installed in."""
        return prefix_of(self.root, environment)


def counts(path: str, gone: Sequence[str]) -> bool:
    """Say whether a path is none of those that are gone, nor below one."""
    return not any(path == other or path.startswith(f"{other}/") for other in gone)


def environment_path(name: str) -> str:
    """Return the folder of an environment, relative to the installation's."""
    return prefix_of(UNNAMED, name).as_posix()


def _environment_words(environment: Environment) -> Iterator[str]:
    yield from environment.aliases


def _model_words(model: Model) -> Iterator[str]:
    yield from model.spec.aliases
    if model.spec.served_name:
        yield model.spec.served_name


def _choose(
    found: dict[str, T], name: str | None, noun: str, words: Callable[[T], Iterator[str]], root: Path
) -> T:
    if name is None and len(found) == 1:
        return next(iter(found.values()))
    for key, value in found.items():
        if name is not None and name.lower() in {key.lower(), *(word.lower() for word in words(value))}:
            return value
    have = ", ".join(found) or "none"
    what = (
        f"which {noun}? here are: {have}" if name is None else f"no {noun} {name!r} here; there are: {have}"
    )
    hint = f"unpack a bundle that holds the {noun}"
    if found:
        option = {"environment": "--env"}.get(noun, f"--{noun}")
        hint = f"name one of them: {option} {shlex.quote(next(iter(found)))}; or {hint}"
    raise UnknownNameError(what, where=root, hint=hint)


def own_installation() -> Path | None:
    """Return the installation whose own ``bin/bundler`` was called; nothing for any other bundler."""
    named = os.environ.get(OWN_VARIABLE)
    return Path(named) if named else None


def find_installation(start: Path = UNNAMED) -> Installation:
    """Return the installation that a command means.

    Where one is named: ``start``, its parents from the nearest on, or the one directly below it. Else the one
    whose own ``bin/bundler`` was called, then that of ``$BUNDLER_HOME``, then the one here, above or below.

    :param start: the folder that was named on the command line.
    :raises UnknownNameError: there is none, or a place holds several.
    :raises InputError: an unpack into it wasn't finished.
    """
    if start == UNNAMED:
        for variable in (OWN_VARIABLE, HOME_VARIABLE):
            if named := os.environ.get(variable):
                return _named_by(variable, Path(named).absolute())
    start = start.absolute()
    for folder in (start, *start.parents):
        if holds_file(folder, RECEIPT):
            return Installation(folder)
    try:
        below = [folder for folder in sorted(start.iterdir()) if holds_file(folder, RECEIPT)]
    except OSError:
        below = []
    if len(below) > 1:
        raise UnknownNameError(
            "which installation? there are several here",
            where=start,
            findings=[str(folder) for folder in below],
            hint=f"name one: -C {shlex.quote(str(below[0]))}, or call its own bin/bundler",
        )
    if below or (start / STATE).is_dir():
        # One that isn't finished raises, and says how to finish it.
        return Installation(below[0] if below else start)
    raise UnknownNameError(
        f"no installation here, above or directly below, and {HOME_VARIABLE} isn't asked or isn't set",
        where=start,
        hint="unpack a bundle first: bundler unpack",
    )


def _named_by(variable: str, folder: Path) -> Installation:
    """Return the installation that a variable names: nothing that lies about is taken in its place."""
    if (folder / STATE).is_dir():
        return Installation(folder)
    raise UnknownNameError(
        f"{variable} doesn't name an installation",
        where=folder,
        hint=f"name another with -C, unset {variable}, or unpack a bundle there",
    )


def read_kept(path: Path) -> Manifest:
    """Read the manifest of a bundle that was unpacked here: its name is its sha256.

    :raises InputError: as :func:`bundler.manifest.read`.
    :raises DamagedError: it is another one.
    """
    manifest, digest = manifests.read_with_digest(path)
    if digest != path.stem:
        raise DamagedError(
            "this isn't the manifest that was unpacked: its sha256 isn't its name",
            where=path,
            hint="unpack the bundle again, to this folder",
        )
    return manifest


def note_waiting(root: Path, waiting: Waiting) -> None:
    """Keep what a bundle that is unpacked in part waits for, or that it waits no more."""
    if waiting.volumes:
        write_atomically(root / WAITING, msgspec.json.encode(waiting) + b"\n")
    else:
        (root / WAITING).unlink(missing_ok=True)


def waiting_of(root: Path) -> Waiting | None:
    """Return what the last unpack to a folder waits for, or ``None``."""
    try:
        return msgspec.json.decode(read_plain(root / WAITING), type=Waiting)
    except (OSError, *BROKEN_JSON):
        return None


def refuse_planted(root: Path) -> None:
    """Refuse to write where another user could lead what is written elsewhere.

    :param root: an installation, or what is to be one.
    :raises DestinationError: a folder of bundler's own there is a link or no folder, or belongs to another
        user than this one or root.
    """
    for name in (STATE, BUNDLES, PARTIAL, CACHE, RUN, VOLUMES, ".pixi", ".pixi/envs", "bin", "runtime"):
        path = root / name
        try:
            status = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        if not stat.S_ISDIR(status.st_mode):
            raise DestinationError(
                f"{name} in the destination is a link or no folder",
                where=path,
                hint="move it away, or unpack to a new folder",
            )
        if status.st_uid not in (0, os.geteuid()):
            raise DestinationError(
                f"{name} in the destination belongs to another user (uid {status.st_uid})",
                where=path,
                hint="run this as that user, unpack to a new folder, or take it over: "
                f"chown -R $(id -u) {shlex.quote(str(root))}",
            )


def now() -> str:
    """Return the time for a receipt: UTC, to the second, ISO 8601."""
    return datetime.now(UTC).replace(microsecond=0).isoformat()


def write_receipt(root: Path, receipt: Receipt) -> None:
    """Replace the receipt in one step, durably."""
    write_atomically(root / RECEIPT, msgspec.json.format(msgspec.json.encode(receipt), indent=1) + b"\n")
