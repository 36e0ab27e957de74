"""Rewrites wheels: members left out, others replaced, RECORD made anew, nothing compressed."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import zipfile
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

TIME = (2023, 11, 14, 22, 13, 20)
"""That every member bears, so that the same input gives the same bytes."""


def cut_wheel(
    source: Path, target: Path, left_out: Sequence[str], change: Callable[[str, bytes], bytes]
) -> None:
    """Write a wheel anew.

    :param left_out: patterns of members' names, in which ``*`` spans folders too.
    :param change: given a member's name and content, returns the content to write.
    """
    rows: list[tuple[str, str, str]] = []
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        record = next(name for name in old.namelist() if name.endswith(".dist-info/RECORD"))
        for member in old.infolist():
            name = member.filename
            if member.is_dir() or name == record or any(fnmatchcase(name, one) for one in left_out):
                continue
            content = change(name, old.read(member))
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            rows.append((name, f"sha256={digest}", str(len(content))))
            _write(new, name, content, member.external_attr)
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([*rows, (record, "", "")])
        _write(new, record, text.getvalue().encode(), 0o644 << 16)


def _write(archive: zipfile.ZipFile, name: str, content: bytes, attributes: int) -> None:
    entry = zipfile.ZipInfo(name, TIME)
    entry.external_attr = attributes
    archive.writestr(entry, content)
