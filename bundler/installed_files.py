"""What an environment's files must be, by the installers' records: conda's ``paths_data``, wheels' RECORD.

``conda-meta/NAME.json`` has the sha256 of each file as it was written, with the prefix put in where one is
(conda's prefix record); ``*.dist-info/RECORD`` has that of each file of a wheel, scripts with their new first
line among them (PyPA, recording installed projects). What neither names, as compiled modules, isn't judged.
"""

from __future__ import annotations

import csv
import os
from typing import TYPE_CHECKING, Any

import msgspec

from bundler.common.broken import BROKEN_JSON
from bundler.manifest import Entry
from bundler.wheel_record import plain_digest, read_rows, records_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def recorded_files(prefix: Path) -> list[Entry]:
    """Return the files that are recorded with a sha256, by their path in an environment.

    A record that can't be read is returned as a file that is damaged: its sha256 is empty. A file that two
    packages bring with different content isn't judged: which of them wrote it last, nobody recorded.
    """
    found = {entry.path: entry for entry in _conda(prefix)}
    records = [
        record
        for record in records_of(prefix)
        # A conda package's own isn't kept true when the prefix is put in.
        if record.relative_to(prefix).as_posix() not in found
    ]
    disputed = set()
    for entry in (entry for record in records for entry in _wheel(prefix, record)):
        known = found.setdefault(entry.path, entry)
        if known.sha256 != entry.sha256:
            disputed.add(entry.path)
    return [entry for path, entry in found.items() if path not in disputed]


def _conda(prefix: Path) -> Iterator[Entry]:
    for record in sorted((prefix / "conda-meta").glob("*.json")):
        try:
            rows = msgspec.json.decode(record.read_bytes())["paths_data"]["paths"]
            yield from (_conda_entry(prefix, row) for row in rows if _is_judged(row))
        except (OSError, KeyError, TypeError, *BROKEN_JSON):
            yield _damaged(prefix, record)


def _is_judged(row: dict[str, Any]) -> bool:
    return row["path_type"] == "hardlink" and bool(row.get("sha256_in_prefix") or row.get("sha256"))


def _conda_entry(prefix: Path, row: dict[str, Any]) -> Entry:
    digest = row.get("sha256_in_prefix") or row["sha256"]
    # What the record says of the size is from before the prefix was put in.
    return _entry(prefix, row["_path"], digest)


def _wheel(prefix: Path, record: Path) -> Iterator[Entry]:
    site = record.parent.parent
    try:
        for path, digest, *_ in read_rows(record):
            # Installers write the records of what they install anew, those that a wheel carries within too.
            plain = None if path.endswith("/RECORD") else plain_digest(digest)
            place = os.path.normpath(site.relative_to(prefix) / path)
            if plain is not None and not place.startswith(".."):
                yield _entry(prefix, place, plain)
    except (OSError, ValueError, csv.Error):
        yield _damaged(prefix, record)


def _entry(prefix: Path, path: str, digest: str) -> Entry:
    try:
        size = (prefix / path).stat().st_size
    except OSError:
        size = 0
    return Entry(path, "file", 0o644, size, digest, -1)


def _damaged(prefix: Path, record: Path) -> Entry:
    return _entry(prefix, record.relative_to(prefix).as_posix(), "")
