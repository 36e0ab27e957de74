"""A wheel's ``RECORD``: the files that an installer wrote (PyPA, *Recording installed projects*)."""

from __future__ import annotations

import base64
import csv
import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

ALGORITHM = "sha256="
Row = list[str]
"""A path from ``site-packages``, the digest, the size; the last two may be empty."""


def records_of(prefix: Path) -> list[Path]:
    """Return the records of an environment's wheels, sorted."""
    return sorted(prefix.glob("lib/python3*/site-packages/*.dist-info/RECORD"))


def read_rows(record: Path) -> list[Row]:
    """Return a record's rows.

    :raises OSError: it can't be read.
    :raises ValueError: it isn't UTF-8.
    :raises csv.Error: it isn't a table.
    """
    with record.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.reader(file) if row]


def write_rows(record: Path, rows: Iterable[Row]) -> None:
    """Write a record anew, as another file: the old one may be a hard link into an installer's cache."""
    partial = record.with_name(record.name + ".partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    partial.chmod(record.stat().st_mode & 0o777)
    partial.replace(record)


def digest_of(data: bytes) -> str:
    """Return a sha256 as a record spells it."""
    return ALGORITHM + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def plain_digest(word: str) -> str | None:
    """Return the sha256 in hex; nothing where a row states none.

    :raises ValueError: it isn't one.
    """
    if not word.startswith(ALGORITHM):
        return None
    text = word.removeprefix(ALGORITHM)
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).hex()
