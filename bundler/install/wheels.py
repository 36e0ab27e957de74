"""Install the wheels of one environment with uv, so that pixi takes them for its own."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from bundler.common.digest import digests_of
from bundler.errors import InstallError
from bundler.store import REFILL
from bundler.wheel_record import digest_of, read_rows, write_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bundler.artifact import Artifact
    from bundler.store import Store

INSTALLER = "uv-pixi"
"""What pixi writes into ``INSTALLER``; wheels of any other it removes and fetches again."""


FOUND_IN = "uv_cache.json"
"""uv's note of the local file that a wheel was taken from."""


def find_uv() -> Path | None:
    """Return the uv program beside this Python, of its package, or on ``PATH``."""
    places = [Path(sys.executable).parent / "uv", Path(sysconfig.get_path("scripts")) / "uv"]
    if find_spec("uv"):
        from uv import find_uv_bin

        with suppress(FileNotFoundError):
            places.insert(0, Path(find_uv_bin()))
    on_path = shutil.which("uv")
    places += [Path(on_path)] if on_path else []
    return next((place for place in places if place.is_file()), None)


def lay_out(wheels: Sequence[Artifact], store: Store, links: Path, folder: Path) -> Path:
    """Make a folder of links to wheels under their own names, and a requirements file with their hashes.

    :param links: the folder of links, the same one for each install with one cache: uv keeps what it unpacked
        under the path that the wheels were found at, so another path costs another copy of them all.
    :param folder: where the requirements file goes.
    :returns: the requirements file.
    :raises InstallError: two wheels have one name, or one hasn't the md5 that the lock fixes it by.
    """
    if links.exists():
        shutil.rmtree(links)
    links.mkdir()
    lines = []
    for wheel in wheels:
        path = store.path(wheel.url).resolve()
        try:
            (links / wheel.filename).symlink_to(path)
        except FileExistsError as problem:
            raise InstallError(f"two wheels of the lock are called {wheel.filename}", where=path) from problem
        lines.append(f"{wheel.name}=={wheel.version} --hash=sha256:{_sha256(wheel, path)}")
    requirements = folder / "requirements.txt"
    requirements.write_text("\n".join(lines) + "\n")
    return requirements


def _sha256(wheel: Artifact, path: Path) -> str:
    """Return the sha256 that uv compares: it takes no md5, so that is compared here.

    A wheel that the user allowed without a hash is what the store has.
    """
    if wheel.sha256 is not None:
        return wheel.sha256
    found = digests_of(path, ("sha256", "md5"))
    if wheel.md5 not in (None, found["md5"]):
        what = f"an artifact of the store is not what the lock promises: {wheel.label}"
        raise InstallError(what, where=path, hint=REFILL)
    return found["sha256"]


def command(uv: Path, python: Path, requirements: Path, links: Path, cache: Path) -> list[str]:
    """Return the command line that installs what :func:`lay_out` made, and looks nowhere else."""
    places = ["--find-links", str(links), "--cache-dir", str(cache)]
    refused = ["--no-deps", "--no-index", "--offline", "--no-build", "--no-config", "--no-python-downloads"]
    return [
        *(str(uv), "pip", "install", "--require-hashes", "--reinstall", "--no-progress"),
        *refused,
        *places,
        *("--python", str(python), "--break-system-packages"),
        *("--requirement", str(requirements)),
    ]


def claim_for_pixi(prefix: Path) -> int:
    """Make uv's notes in each distribution those of pixi: its installer name, and no note of a folder.

    :returns: how many distributions there were.
    """
    count = 0
    for installer in prefix.glob("lib/python*/site-packages/*.dist-info/INSTALLER"):
        if installer.read_text().strip() != "uv":
            continue
        folder = installer.parent
        _replace(installer, INSTALLER.encode())
        # Where uv found the wheel: in a folder of this install, which is gone.
        (folder / FOUND_IN).unlink(missing_ok=True)
        stated = {
            f"{folder.name}/INSTALLER": [digest_of(INSTALLER.encode()), str(len(INSTALLER))],
            f"{folder.name}/{FOUND_IN}": None,
        }
        rows = ((row[0], stated.get(row[0], row[1:])) for row in read_rows(folder / "RECORD"))
        write_rows(folder / "RECORD", ([path, *rest] for path, rest in rows if rest is not None))
        count += 1
    return count


def _replace(path: Path, data: bytes) -> None:
    """Write a file anew: the old one may be a hard link into uv's cache."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    partial.chmod(path.stat().st_mode & 0o777)
    partial.replace(path)
