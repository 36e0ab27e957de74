"""The bundle's manifest: typed, strict, to and from JSON. ``docs/FORMAT.md`` specifies it.

The manifest holds no clock, no host and no path of the machine that packed, so that the same inputs give the
same bytes.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal

import msgspec

from bundler.common.broken import BROKEN_JSON
from bundler.common.durable import read_plain
from bundler.errors import InputError
from bundler.model import ModelFacts, ModelSpec
from bundler.stack import CUDNN, Stack

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = 1
"""The format's version; a reader refuses a higher one."""
KNOWN_FEATURES: frozenset[str] = frozenset({"delta"})
"""What this reader knows of ``requires``; anything else there is refused."""

EntryKind = Literal["file", "dir", "link"]


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A strict part of the manifest: what it doesn't know, it refuses."""


class Writer(_Part, frozen=True, kw_only=True):
    """Which software made the volumes; the same versions give the same bytes."""

    bundler: str
    libzstd: str


class Digests(_Part, frozen=True, kw_only=True):
    """Which digest covers what."""

    file: Literal["sha256"] = "sha256"
    volume: Literal["sha256"] = "sha256"
    frame: Literal["blake3"] = "blake3"


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One entry of the target tree, as a row: the order of the fields is the row's order."""

    path: str
    """Relative to the installation, with ``/``, normalised; never absolute, never with ``..``."""
    kind: EntryKind
    mode: int
    """Permission bits; 0o755 or 0o644 for files."""
    size: int
    """Bytes of content; 0 for folders and links."""
    sha256: str
    """Of the content; empty for folders and links."""
    offset: int
    """Where the content begins in the tar stream, in bytes; -1 where the stream doesn't carry it."""
    target: str = ""
    """A link's target, relative, inside the tree."""


class Volume(_Part, frozen=True, kw_only=True):
    """One file of the archive: frames only, without gaps."""

    name: str
    size: int
    sha256: str
    frames: int
    """How many frames it holds; the first follows the last of the volume before."""


class Frames(_Part, frozen=True, kw_only=True):
    """The index, in columns: one element a frame, in the stream's order."""

    raw: tuple[int, ...] = ()
    """Bytes of the tar stream it holds."""
    stored: tuple[int, ...] = ()
    """Bytes it takes in its volume."""
    blake3: tuple[str, ...] = ()
    """Digest of the bytes in the volume, hex."""
    filter: tuple[str, ...] | None = None
    """What is undone after decompression; ``None``: nothing, in any frame."""


class Package(msgspec.Struct, frozen=True, array_like=True):
    """A conda package or a wheel of an environment, as a row."""

    kind: Literal["conda", "wheel"]
    name: str
    version: str
    build: str
    path: str
    """Its archive's place in the tree."""
    size: int
    sha256: str
    installed_bytes: int
    """What its files take once installed."""
    inodes: int
    """How many files, links and folders it makes."""


class Environment(_Part, frozen=True, kw_only=True):
    """A pixi environment that the bundle installs."""

    name: str
    """As pixi.toml spells it."""
    aliases: tuple[str, ...] = ()
    """Other words for it: the features it is made of."""
    platform: str = "linux-64"
    """The platform's name in the lock."""
    cuda: str | None = None
    """The CUDA version its torch was built for: ``12.8``."""
    python: str | None = None
    sglang: str | None = None
    torch: str | None = None
    imports: tuple[str, ...] = ()
    """Modules that the rehearsal and ``check`` import."""
    glibc: str | None = None
    """The newest glibc that its wheels' tags or conda records ask for."""
    packages: tuple[Package, ...] = ()
    md5_only: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    """Paths in the tree of the packages that the lock fixes by an md5 alone: their bytes had it when they
    were fetched, and the sha256 here is that of these bytes. Not there where there are none."""

    @property
    def stack(self) -> Stack:
        """The versions that decide where it runs; the file has them as fields of its own."""
        cudnn = next((one.version for one in self.packages if one.name == CUDNN), None)
        return Stack(
            cuda=self.cuda,
            python=self.python,
            torch=self.torch,
            sglang=self.sglang,
            glibc=self.glibc,
            cudnn=cudnn,
        )


class Model(_Part, frozen=True, kw_only=True):
    """A model that the bundle carries."""

    spec: ModelSpec
    path: str
    """The weights' folder in the tree."""
    origin: str
    """``modelscope:OWNER/NAME``, ``huggingface:OWNER/NAME`` or ``folder``."""
    revision: str | None = None
    """The commit it was pinned to."""
    facts: ModelFacts = ModelFacts()
    license_files: tuple[str, ...] = ()
    """Licence and card, as paths in the tree."""


class Rehearsal(_Part, frozen=True, kw_only=True):
    """Whether the environment was installed with the network cut before the bundle was written.

    That was this pack or an earlier rehearsal of the same lock, artifacts and installer: nothing here tells
    them apart, as the same inputs give the same bytes.
    """

    status: Literal["passed", "not rehearsed"]
    installer: str | None = None
    """``pixi 0.77.0`` or ``native``."""
    isolation: str | None = None
    """How the network was cut: ``unshare -n``, ``unshare -rn``, ``bwrap``."""
    imports: tuple[str, ...] = ()
    reason: str | None = None
    """Why it was not rehearsed."""


class Runtime(_Part, frozen=True, kw_only=True):
    """What ``runtime.tar.gz`` holds."""

    source: str
    """What it was made of: ``environment bundler``."""
    python: str
    pixi: str | None = None
    bundler: str
    glibc: str | None = None
    """The newest glibc that its packages ask for."""
    unpacked_bytes: int
    inodes: int


class CompanionFile(msgspec.Struct, frozen=True, array_like=True):
    """A file beside the volumes, as a row; its sha256 is in ``SHA256SUMS``."""

    name: str
    size: int


class Parity(_Part, frozen=True, kw_only=True):
    """Parity volumes. Never named in ``requires``: a reader that ignores them reads the bundle as well.

    Their names and sizes follow from these numbers, their digests are in ``SHA256SUMS``: the manifest knows
    nothing of their bytes, so that they can carry it.
    """

    data: int
    """The most files of a group."""
    parity: int
    """Parity volumes of a group: files that may be lost."""
    stripe: int
    """Bytes of a piece: what is mended as a whole."""
    files: tuple[CompanionFile, ...] = ()
    """What is covered besides the volumes, by name."""


class Base(_Part, frozen=True, kw_only=True):
    """The bundle a delta builds on; such a manifest has ``delta`` in ``requires``."""

    name: str
    manifest_sha256: str


class Manifest(_Part, frozen=True, kw_only=True):
    """All that a reader needs to know of a bundle."""

    format: int = FORMAT
    requires: tuple[str, ...] = ()
    """Features without which a reader would do wrong; an unknown one is refused."""
    name: str
    writer: Writer
    digests: Digests = Digests()
    environments: tuple[Environment, ...] = ()
    models: tuple[Model, ...] = ()
    rehearsal: Rehearsal = Rehearsal(status="not rehearsed", reason="not asked for")
    runtime: Runtime | None = None
    tree: tuple[Entry, ...] = ()
    """The full target tree, in the stream's order: parents before children."""
    stream_size: int = 0
    """Bytes of the tar stream: the sum of all frames' raw sizes."""
    volumes: tuple[Volume, ...] = ()
    frames: Frames = Frames()
    parity: Parity | None = None
    base: Base | None = None


def encode(manifest: Manifest) -> bytes:
    """Return the manifest as JSON: one byte sequence for one manifest."""
    return msgspec.json.encode(manifest) + b"\n"


class _Head(msgspec.Struct):
    """What every version of the format has, read before anything else is believed."""

    format: int
    requires: tuple[str, ...] = ()


def decode(data: bytes, where: Path | str) -> Manifest:
    """Read a manifest.

    :param data: the JSON.
    :param where: its file, for messages.
    :raises InputError: not a manifest, of a newer format, or with features this reader doesn't know.
    """
    try:
        head = msgspec.json.decode(data, type=_Head)
    except BROKEN_JSON as problem:
        raise InputError(
            f"manifest.json can't be read: {problem}",
            where=where,
            hint="copy the bundle's manifest.json again",
        ) from problem
    if head.format < 1:
        raise InputError(
            f"manifest.json is not of this format: format {head.format}",
            where=where,
            hint="copy the bundle's manifest.json again",
        )
    unknown = sorted(set(head.requires) - KNOWN_FEATURES)
    if head.format > FORMAT or unknown:
        wanted = f"format {head.format}" if head.format > FORMAT else ", ".join(unknown)
        raise InputError(
            f"this bundle needs a newer bundler (it uses {wanted}; this one reads format {FORMAT})",
            where=where,
            hint="use the bundler that travels with the bundle: sh install.sh DEST",
        )
    try:
        return msgspec.json.decode(data, type=Manifest)
    except BROKEN_JSON as problem:
        raise InputError(
            f"manifest.json is not of this format: {problem}",
            where=where,
            hint="copy the bundle's manifest.json again",
        ) from problem


def read(path: Path) -> Manifest:
    """Read ``manifest.json``.

    :raises InputError: as :func:`decode`, or the file isn't there.
    """
    return read_with_digest(path)[0]


def read_with_digest(path: Path) -> tuple[Manifest, str]:
    """Read ``manifest.json``, and return it with the sha256 of its bytes.

    :raises InputError: as :func:`read`.
    """
    try:
        data = read_plain(path)
    except OSError as problem:
        raise InputError(f"can't read {path.name}: {problem.strerror}", where=path) from problem
    return decode(data, path), hashlib.sha256(data).hexdigest()
