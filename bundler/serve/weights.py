"""The weights as they lie on the disk, against what was unpacked."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import msgspec

from bundler.common.digest import sha256_of
from bundler.common.progress import SILENT
from bundler.common.units import size_text
from bundler.errors import DamagedError
from bundler.host.finding import fail, good, warn
from bundler.safetensors import read_file_header

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bundler.common.progress import Reporter
    from bundler.host.finding import Finding
    from bundler.installation import SeenFile

HASH_THREADS = 8
FETCH_AGAIN = "unpack that bundle again; the files that are whole are kept"


def check_weights(
    root: Path,
    folder: str,
    files: Sequence[SeenFile],
    *,
    deep: bool = False,
    threads: int = HASH_THREADS,
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
    bad = {file.path: problem for file in mine if (problem := _quick_problem(root, file))}
    touched = [file.path for file in mine if file.path not in bad and _touched(root, file)]
    if deep:
        bad |= _deep_problems(root, [file for file in mine if file.path not in bad], threads, reporter)
    for path, problem in sorted(bad.items()):
        yield fail("weights", path, problem, "as unpacked", FETCH_AGAIN)
    if touched and not deep:
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
    for name, problem in sorted(bad.items()):
        yield fail("weights", name, problem, "whole", "fetch it again")
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
    except (OSError, msgspec.DecodeError):
        return []


def _quick_problem(root: Path, file: SeenFile) -> str | None:
    path = root / file.path
    try:
        size = path.stat().st_size
    except OSError as problem:
        return problem.strerror or "can't be read"
    if size != file.size:
        return (
            f"{size} bytes, {'truncated' if size < file.size else 'longer than unpacked'}: wanted {file.size}"
        )
    return _header_problem(path) if path.suffix == ".safetensors" else None


def _header_problem(path: Path) -> str | None:
    try:
        read_file_header(path)
    except DamagedError as problem:
        return "; ".join(problem.findings) or problem.what
    except OSError as problem:
        return problem.strerror or "can't be read"
    return None


def _touched(root: Path, file: SeenFile) -> bool:
    return (root / file.path).stat().st_mtime_ns != file.mtime_ns


def _deep_problems(root: Path, files: Sequence[SeenFile], threads: int, reporter: Reporter) -> dict[str, str]:
    """Hash files side by side and return those that differ."""
    with (
        reporter.phase("hash weights", sum(file.size for file in files)) as meter,
        ThreadPoolExecutor(max_workers=max(1, min(threads, len(files)))) as pool,
    ):
        tasks = {file.path: pool.submit(sha256_of, root / file.path, meter.advance) for file in files}
        try:
            digests = {path: task.result() for path, task in tasks.items()}
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return {file.path: "its sha256 differs" for file in files if digests[file.path] != file.sha256}
