"""What conda packages and wheels say of themselves, read out of their own files.

Only metadata is read: of a ``.conda`` the part ``info-*.tar.zst``, of a wheel ``METADATA``. What they say is
untrusted text.
"""

from __future__ import annotations

import bz2
import io
import json
import lzma
import struct
import tarfile
import zipfile
import zlib
from email.parser import HeaderParser
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import msgspec
import zstandard

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGEST = 32 * 2**20
"""Bytes of metadata that are read at most: a hostile package may claim to hold any amount."""
UNREADABLE = (
    *(OSError, EOFError, ValueError, LookupError, RuntimeError, ArithmeticError, AttributeError, TypeError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, tarfile.TarError, zstandard.ZstdError),
)
"""What Python's readers of archives raise on a file that is none."""


class PackageMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """What a package's own metadata says; what it doesn't say is empty."""

    license: str = ""
    """As it stands there: an SPDX expression, a name, or a whole text."""
    license_is_expression: bool = False
    """Whether the field that it stands in promises an SPDX expression."""
    classifiers: tuple[str, ...] = ()
    """Trove classifiers of a wheel that begin with ``License ::``."""
    license_files: tuple[str, ...] = ()
    summary: str = ""
    homepage: str = ""
    source: str = ""
    """Where its source code is."""
    author: str = ""


NO_METADATA = PackageMetadata()


def read_metadata(kind: Literal["conda", "wheel"], path: str, file: BinaryIO) -> PackageMetadata:
    """Read a package's metadata.

    :param path: its place, for the ending.
    :raises ValueError: it is no such package; others of :data:`UNREADABLE`: it is broken.
    """
    if kind == "wheel":
        return _wheel(file)
    return _conda(_conda_info(path, file))


def _wheel(file: BinaryIO) -> PackageMetadata:
    with zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        tops = [name for name in names if name.count("/") == 1]
        if not tops:
            raise ValueError("no METADATA in the wheel")
        with archive.open(tops[0]) as member:
            return wheel_metadata(member.read(LARGEST))


def wheel_metadata(data: bytes) -> PackageMetadata:
    """Return what a wheel's ``METADATA`` says."""
    fields = HeaderParser().parsestr(data.decode("utf-8", "replace"))

    def one(name: str) -> str:
        value = str(fields.get(name, "")).strip()
        return "" if value == "UNKNOWN" else value

    def all_of(name: str) -> tuple[str, ...]:
        return tuple(str(value).strip() for value in fields.get_all(name, []))

    links = dict(_links(all_of("Project-URL")))
    return PackageMetadata(
        license=one("License-Expression") or one("License"),
        license_is_expression=bool(one("License-Expression")),
        classifiers=tuple(value for value in all_of("Classifier") if value.startswith("License ::")),
        license_files=all_of("License-File"),
        summary=one("Summary"),
        homepage=one("Home-page") or links.get("homepage", "") or links.get("home", ""),
        source=next(
            (links[word] for word in ("source", "repository", "code", "github") if word in links), ""
        ),
        author=one("Author") or one("Author-email"),
    )


def _links(lines: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for line in lines:
        label, _, address = line.partition(",")
        yield label.strip().lower().removesuffix(" code"), address.strip()


def _conda(info: dict[str, Any]) -> PackageMetadata:
    def one(name: str) -> str:
        value = info.get(name) or ""
        return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

    return PackageMetadata(
        license=one("license"),
        license_files=tuple(info["license_files"]),
        summary=one("summary"),
        homepage=one("home"),
        source=one("dev_url") or one("source_url"),
    )


def _conda_info(path: str, file: BinaryIO) -> dict[str, Any]:
    """Return ``index.json`` and ``about.json`` in one, with the names of the licence's files."""
    if path.endswith(".conda"):
        with zipfile.ZipFile(file) as archive:
            (name,) = [one for one in archive.namelist() if one.startswith("info-")]
            with archive.open(name) as member:
                reader = zstandard.ZstdDecompressor().stream_reader(member)
                return _info_of(io.BytesIO(reader.read(LARGEST)))
    return _info_of(bz2.BZ2File(file))


def _info_of(stream: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    names: list[str] = []
    seen: set[str] = set()
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            if len(seen) == 2 and not member.name.startswith("info/"):
                break
            if member.name.startswith("info/licenses/"):
                names.append(member.name.removeprefix("info/licenses/"))
            elif member.name in ("info/about.json", "info/index.json"):
                seen.add(member.name)
                part = archive.extractfile(member)
                said = json.loads(part.read(LARGEST)) if part else {}
                if not isinstance(said, dict):
                    raise ValueError(f"{member.name} is no object")
                # index.json is what the channel says, too: where both have a field, it counts.
                found = found | said if member.name == "info/index.json" else said | found
    if not found:
        raise ValueError("no metadata in the conda package")
    return {**found, "license_files": names}
