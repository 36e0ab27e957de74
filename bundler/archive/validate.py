"""What a manifest may say: all of it is checked before a byte is written, whoever wrote it."""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING

from bundler.archive import frames, sums, tar
from bundler.common.text import has_controls
from bundler.errors import InputError
from bundler.installation import RESERVED
from bundler.launch_names import malformed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from bundler.manifest import Entry, Manifest

HOPS = 40
"""As many links as Linux follows for one path; what goes on is a circle, which leads nowhere."""
DEEPEST = 255
"""Parts of a path: each is opened in turn, and tools that walk a tree call themselves for each."""
SHOWN = 20
"""How many findings a message names."""
LARGEST = 2**60
"""No size, offset or sum may be above: such a number is an attack or a defect."""
LARGEST_STRIPE = 2**20
"""The most bytes of a piece that parity is made of; a reader's memory follows from it."""
MOST_PIECES = 256
"""Pieces that Reed–Solomon over bytes can tell apart."""
VOLUME_NAME = "data-{:05}.tar.zst"
"""A volume's name from its number, which begins at 1. The shell's order of the names is the stream's."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}")
_HEX = re.compile(r"[0-9a-f]{64}")
_MODES = {"file": {tar.FILE_MODE, tar.EXECUTABLE_MODE}, "dir": {tar.DIR_MODE}, "link": {tar.LINK_MODE}}
_RESERVED = frozenset(name.casefold() for name in RESERVED)


def check(manifest: Manifest, where: Path | str) -> None:
    """Refuse a manifest that doesn't describe a stream, or whose tree isn't safe to make.

    :raises InputError: with each finding on a line, the first 20.
    """
    _check((_head, _tree, _links, _stream, _volumes, _references, _parity), manifest, where)


def check_head(manifest: Manifest, where: Path | str) -> None:
    """Check a manifest whose volumes aren't written yet.

    :raises InputError: as :func:`check`.
    """
    _check((_head, _tree, _links, _stream, _references), manifest, where)


def _check(
    parts: Iterable[Callable[[Manifest], Iterator[str]]], manifest: Manifest, where: Path | str
) -> None:
    for part in parts:
        findings = list(islice(part(manifest), SHOWN + 1))
        if findings:
            # Each part trusts the ones before it.
            _refuse(findings, where)


def _refuse(findings: list[str], where: Path | str) -> None:
    more = ["and more"] if len(findings) > SHOWN else []
    raise InputError(
        "this manifest is damaged or hostile: it can't be unpacked safely",
        where=where,
        findings=findings[:SHOWN] + more,
        hint="copy the bundle again from where it was packed; don't use it if it came from elsewhere",
    )


def path_finding(path: str) -> str | None:
    """Say what is wrong with a path of the tree, or ``None``."""
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return f"path {path!r} is not Unicode text"
    parts = path.split("/")
    if not path or path.startswith("/") or any(part in ("", ".", "..") for part in parts):
        return f"path {path!r} is absolute, empty or not normalised"
    if has_controls(path):
        return f"path {path!r} has control characters"
    if len(encoded) > 4000 or any(len(part.encode()) > 255 for part in parts):
        return f"path {path[:80]!r}… is too long"
    if len(parts) > DEEPEST:
        return f"path {path[:80]!r}… is too deep: {len(parts)} parts"
    if parts[0].casefold() in _RESERVED:
        return f"path {path!r} is in {parts[0]}/, which belongs to the installation itself"
    return None


def link_finding(path: str, target: str) -> str | None:
    """Say what is wrong with a link of the tree, or ``None``.

    A target goes up first and then down, and never above the tree: then it stays inside, whatever the
    parts it goes down through are.
    """
    if not target or target.startswith("/"):
        return f"link {path!r} has no relative target"
    if has_controls(target):
        return f"link {path!r} has a target with control characters: {target!r}"
    try:
        long = len(target.encode()) > 4000
    except UnicodeEncodeError:
        return f"link {path!r} has a target that is not Unicode text"
    parts = target.split("/")
    ups = 0
    while ups < len(parts) and parts[ups] == "..":
        ups += 1
    downs = parts[ups:]
    if long or any(part in ("", ".", "..") for part in downs):
        return f"link {path!r} has a target that is not normalised: {target[:80]!r}"
    above = path.split("/")[:-1]
    if ups > len(above):
        return f"link {path!r} leads out of the tree: {target!r}"
    landing = [*above[: len(above) - ups], *downs]
    if landing and landing[0].casefold() in _RESERVED:
        return f"link {path!r} leads into {landing[0]}/, which belongs to the installation itself"
    return None


def case_collisions(paths: Iterable[str]) -> list[tuple[str, str]]:
    """Return the pairs of paths that are one on a file system that doesn't tell case."""
    seen: dict[str, str] = {}
    found = []
    for path in paths:
        other = seen.setdefault(path.casefold(), path)
        if other != path:
            found.append((other, path))
    return found


def name_is_safe(name: str) -> bool:
    """Tell whether a name can be a folder's name anywhere."""
    return _NAME.fullmatch(name) is not None


def _head(manifest: Manifest) -> Iterator[str]:
    names = [manifest.name, *(environment.name for environment in manifest.environments)]
    names += [model.spec.name for model in manifest.models]
    for name in names:
        if not name_is_safe(name):
            yield f"name {name!r} can't be a folder's name"
    if manifest.frames.filter is not None:
        yield "frames have filters, which this format doesn't define"
    if manifest.base is not None and "delta" not in manifest.requires:
        yield "a base is named, and `delta` isn't required"
    if manifest.base is None and "delta" in manifest.requires:
        yield "`delta` is required, and no base is named"


def _tree(manifest: Manifest) -> Iterator[str]:
    kinds: dict[str, str] = {}
    for entry in manifest.tree:
        finding = path_finding(entry.path)
        if finding is None and entry.path in kinds:
            finding = f"path {entry.path!r} is there twice"
        parent = entry.path.rpartition("/")[0]
        if finding is None and parent and kinds.get(parent) != "dir":
            finding = f"path {entry.path!r} is not under a folder that comes before it"
        finding = finding or _entry_finding(entry)
        if finding:
            yield finding
        kinds[entry.path] = entry.kind


def _links(manifest: Manifest) -> Iterator[str]:
    """Follow each link through the others: two that are harmless alone can lead out together."""
    links = {entry.path: entry.target for entry in manifest.tree if entry.kind == "link"}
    for path in links:
        landing = _landing(path, links)
        if landing is None:
            yield f"link {path!r} leads out of the tree over other links"
        elif landing and landing[0].casefold() in _RESERVED:
            yield f"link {path!r} leads into {landing[0]}/ over other links"


def _landing(path: str, links: Mapping[str, str]) -> list[str] | None:
    """Return the parts of the path that a link leads to in the end; ``None``: above the tree."""
    at: list[str] = []
    coming = path.split("/")[::-1]
    hops = 0
    while coming and hops <= HOPS:
        part = coming.pop()
        if part == "..":
            if not at:
                return None
            at.pop()
            continue
        at.append(part)
        target = links.get("/".join(at))
        if target is not None:
            hops += 1
            at.pop()
            coming.extend(target.split("/")[::-1])
    return at


def _entry_finding(entry: Entry) -> str | None:
    if entry.mode not in _MODES[entry.kind]:
        return f"{entry.path!r} has mode {entry.mode:o}"
    if not 0 <= entry.size < LARGEST or not -1 <= entry.offset < LARGEST:
        return f"{entry.path!r} has an absurd size or offset"
    if entry.kind == "file":
        sound = _HEX.fullmatch(entry.sha256) and not entry.target
        return None if sound else f"file {entry.path!r} has no sha256, or a link's target"
    if entry.size or entry.sha256:
        return f"{entry.kind} {entry.path!r} has content"
    if entry.kind == "link":
        return link_finding(entry.path, entry.target)
    return f"folder {entry.path!r} has a target" if entry.target else None


def _stream(manifest: Manifest) -> Iterator[str]:
    """Lay the stream out from the tree: offsets have no freedom, so none can overlap or lie outside."""
    delta = manifest.base is not None
    carried = [entry for entry in manifest.tree if entry.offset >= 0]
    if not delta and len(carried) != len(manifest.tree):
        yield "some entries aren't in the stream, and no base is named"
        return
    rows = ((entry.path, entry.kind, entry.mode, entry.size, entry.target) for entry in carried)
    position = 0
    for entry, place in zip(carried, tar.places(rows), strict=True):
        if entry.offset != place.content:
            yield f"{entry.path!r} lies at {entry.offset} in the stream, not at {place.content}"
            return
        position = place.end
    size = position + len(tar.ending(position))
    if manifest.stream_size != size:
        yield f"the stream has {manifest.stream_size} bytes, and its entries make {size}"


def _volumes(manifest: Manifest) -> Iterator[str]:
    index = manifest.frames
    if not len(index.raw) == len(index.stored) == len(index.blake3):
        yield "the frames' columns differ in length"
        return
    if any(not 0 < raw <= frames.LARGEST_FRAME for raw in index.raw):
        yield f"a frame holds nothing, or more than {frames.LARGEST_FRAME} bytes"
        return
    sizes = zip(index.raw, index.stored, strict=True)
    if any(not 8 < stored <= frames.largest_stored(raw) for raw, stored in sizes):
        yield "a frame takes less or more room than a frame can"
    if any(_HEX.fullmatch(digest) is None for digest in index.blake3):
        yield "a frame's digest is not 64 hex digits"
    if sum(index.raw) != manifest.stream_size:
        yield f"the frames hold {sum(index.raw)} bytes, and the stream has {manifest.stream_size}"
    yield from _volume_sums(manifest, index.stored)


def _volume_sums(manifest: Manifest, stored: Sequence[int]) -> Iterator[str]:
    first = 0
    for number, volume in enumerate(manifest.volumes, 1):
        if volume.name != VOLUME_NAME.format(number):
            yield f"volume {number} is called {volume.name!r}, not {VOLUME_NAME.format(number)}"
        if _HEX.fullmatch(volume.sha256) is None:
            yield f"volume {number} has no sha256"
        if not 0 < volume.frames <= len(stored) - first:
            yield f"volume {number} has {volume.frames} frames, of {len(stored) - first} that are left"
            return
        room = sum(stored[first : first + volume.frames])
        if room != volume.size:
            yield f"volume {number} has {volume.size} bytes, and its frames take {room}"
        first += volume.frames
    if first != len(stored):
        yield f"the volumes have {first} frames, and the index has {len(stored)}"


def _parity(manifest: Manifest) -> Iterator[str]:
    parity = manifest.parity
    if parity is None:
        return
    if not (parity.data > 0 and parity.parity > 0 and parity.data + parity.parity <= MOST_PIECES):
        yield f"parity of {parity.parity} over {parity.data} files can't be"
    if not 0 < parity.stripe <= LARGEST_STRIPE:
        yield f"parity has stripes of {parity.stripe} bytes"
    names = [file.name for file in parity.files]
    own = {sums.MANIFEST, *sums.UNLISTED}
    if len(set(names)) != len(names):
        yield "parity covers a file twice"
    for file in parity.files:
        ours = file.name in own or sums.is_volume(file.name) or sums.is_parity(file.name)
        if ours or not name_is_safe(file.name):
            yield f"parity can't cover {file.name!r}"
        if not 0 <= file.size < LARGEST:
            yield f"{file.name!r} has an absurd size"


def _references(manifest: Manifest) -> Iterator[str]:
    kinds = {entry.path: entry.kind for entry in manifest.tree}
    for environment in manifest.environments:
        for package in environment.packages:
            if kinds.get(package.path) != "file":
                yield f"package {package.name!r} has no file {package.path!r} in the tree"
            if not 0 <= package.installed_bytes < LARGEST or not 0 <= package.inodes < LARGEST:
                yield f"package {package.name!r} has an absurd size"
    for model in manifest.models:
        yield from (f"model {model.spec.name!r}: {finding}" for finding in malformed(model.spec))
        if kinds.get(model.path) != "dir":
            yield f"model {model.spec.name!r} has no folder {model.path!r} in the tree"
        for path in model.license_files:
            if kinds.get(path) != "file":
                yield f"licence {path!r} of {model.spec.name!r} is not in the tree"
