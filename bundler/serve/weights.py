"""The weights as they lie on the disk, against what was unpacked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from bundler.common.broken import BROKEN_JSON
from bundler.common.progress import SILENT
from bundler.common.units import size_text
from bundler.errors import DamagedError
from bundler.host.finding import fail, good, warn
from bundler.manifest import Entry
from bundler.record import compare
from bundler.safetensors import read_file_header

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bundler.common.progress import Reporter
    from bundler.host.finding import Finding
    from bundler.installation import SeenFile
    from bundler.record import Difference

FETCH_AGAIN = "unpack that bundle again; the files that are whole are kept"


def check_weights(
    root: Path,
    folder: str,
    files: Sequence[SeenFile],
    *,
    deep: bool = False,
    reporter: Reporter = SILENT,
) -> Iterator[Finding]:
    """Compare a model's files with the receipt: size, time and safetensors headers; all bytes if ``deep``.

    :param root: the installation.
    :param folder: the model's folder in it.
    :param files: the receipt's files; those outside the folder are left alone.
    """
    mine = [file for file in files if file.path.startswith(folder.rstrip("/") + "/")]
    if not mine:
        fix = "unpack the bundle that holds the model"
        yield fail("weights", "files", "none in the receipt", f"files under {folder}", fix)
        return
    differing = list(
        compare(
            root,
            [Entry(file.path, "file", 0o644, file.size, file.sha256, -1) for file in mine],
            times=None if deep else {file.path: file.mtime_ns for file in mine},
            deep=deep,
            follow=True,
            reporter=reporter,
            phase="hash weights",
        )
    )
    touched = sorted(one.entry.path for one in differing if one.kind == "time")
    shards = [file.path for file in mine if file.path.endswith(".safetensors")]
    bad = {path: problem for path in shards if (problem := _header_problem(root / path))}
    bad |= {one.entry.path: _problem(one) for one in differing if one.kind != "time"}
    for path, problem in sorted(bad.items()):
        yield fail("weights", path, problem, "as unpacked", FETCH_AGAIN)
    if touched:
        seen = f"{len(touched)} with another time, {touched[0]} first"
        yield warn("weights", "file times", seen, "as unpacked", "bundler doctor --deep reads every byte")
    if not bad:
        total = sum(file.size for file in mine)
        how = "every byte hashed" if deep else "sizes, times, headers"
        yield good("weights", "files", f"{len(mine)} files, {size_text(total)}: {how}")


def check_folder(folder: Path) -> Iterator[Finding]:
    """Check a model's folder that no receipt tells of: config, index, shards, headers."""
    if not (folder / "config.json").is_file():
        yield fail("weights", "config.json", "not there", str(folder), "name the model's folder")
        return
    shards = sorted(folder.glob("*.safetensors"))
    missing = [name for name in indexed_shards(folder) if not (folder / name).is_file()]
    bad = {path.name: problem for path in shards if (problem := _header_problem(path))}
    bad |= dict.fromkeys(missing, "not there")
    bad |= {path.name: "a link that leads nowhere" for path in folder.iterdir() if not path.exists()}
    for name, problem in sorted(bad.items()):
        fix = "copy it here again, from where it is whole"
        if (folder / name).is_symlink():
            fix = "copy the folder again from where it is whole, with the files in place of links: cp -rL"
        yield fail("weights", name, problem, "whole", fix)
    if not shards and not bad:
        yield warn("weights", "files", "no *.safetensors", "weights", f"is this the model? {folder}")
    elif not bad:
        total = sum(path.stat().st_size for path in shards)
        yield good("weights", "files", f"{len(shards)} shards, {size_text(total)}: headers")


def indexed_shards(folder: Path) -> list[str]:
    """Return the shards that the model's index names; none where it has no index."""

    class Index(msgspec.Struct):
        weight_map: dict[str, str] = {}

    try:
        data = (folder / "model.safetensors.index.json").read_bytes()
        return sorted(set(msgspec.json.decode(data, type=Index).weight_map.values()))
    except (OSError, *BROKEN_JSON):
        return []


def _problem(difference: Difference) -> str:
    wanted = difference.entry.size
    if difference.kind == "size":
        how = "truncated" if difference.size < wanted else "longer than unpacked"
        return f"{difference.size} bytes, {how}: wanted {wanted}"
    words = {"content": "its sha256 differs", "kind": "is not a file"}
    return words.get(difference.kind, difference.problem)


def _header_problem(path: Path) -> str | None:
    try:
        read_file_header(path)
    except DamagedError as problem:
        return "; ".join(problem.findings) or problem.what
    except OSError as problem:
        return problem.strerror or "can't be read"
    return None
