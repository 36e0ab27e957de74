"""The generations of an installation: each a whole one, and a small file that says which of them counts.

The first is the installation's own folder. An update makes the next below ``.bundler/generations``: what is
equal is linked, so that it takes the disk for what differs; what counts is switched in one step.

::

    DEST/                        the first generation, bin/ and runtime/ for all
      .bundler/
        generations.json         which one counts, which are whole, what was done when
        generations/2/           a whole installation
        cache/ run/              for all: the installers' caches, the servers
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from bundler.common import durable
from bundler.common.broken import BROKEN_JSON
from bundler.common.durable import read_plain, sync_folder, write_atomically
from bundler.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

RECORD = ".bundler/generations.json"
GENERATIONS = ".bundler/generations"
FIRST = 1
SHARED = frozenset({"bin", "runtime", ".bundler"})
"""What of the installation's own folder belongs to all generations."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A change of what counts."""

    number: int
    """The generation that counts since."""
    what: Literal["update", "rollback"]
    when: str
    """UTC, ISO 8601."""
    bundle: str = ""
    """The name of the bundle that an update brought."""
    signed: str = ""
    """What is known of who made that bundle."""


class Generations(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept in the file."""

    current: int = FIRST
    whole: tuple[int, ...] = (FIRST,)
    """The generations that can be switched to; others are unfinished, or are being removed."""
    steps: tuple[Step, ...] = ()


def read(home: Path) -> Generations:
    """Read the file; without one the installation's own folder is all there is.

    :raises InputError: it is there and can't be read: nobody knows then which generation counts.
    """
    try:
        return msgspec.json.decode(read_plain(home / RECORD), type=Generations)
    except (FileNotFoundError, NotADirectoryError):
        return Generations()
    except (OSError, *BROKEN_JSON) as problem:
        raise InputError(
            f"which generation counts can't be read: {problem}",
            where=home / RECORD,
            hint="remove that file: the installation's own folder counts then, if it is whole",
        ) from problem


def write(home: Path, generations: Generations) -> None:
    """Replace the file in one durable step. The scripts in ``bin`` read the line ``"current": N`` of it."""
    write_atomically(home / RECORD, msgspec.json.format(msgspec.json.encode(generations), indent=1) + b"\n")


def root_of(home: Path, number: int) -> Path:
    """Return a generation's folder."""
    return home if number == FIRST else home / GENERATIONS / str(number)


def current_root(home: Path) -> Path:
    """Return the folder of the generation that counts.

    :raises InputError: as :func:`read`.
    """
    return root_of(home, read(home).current)


def home_of(root: Path) -> Path:
    """Return the installation's own folder from that of one of its generations."""
    folder = root.parent
    return folder.parent.parent if folder.parts[-2:] == tuple(GENERATIONS.split("/")) else root


def number_of(root: Path) -> int:
    """Return a generation's number from its folder."""
    return FIRST if home_of(root) == root else int(root.name)


def further(home: Path) -> list[int]:
    """Return the numbers of the generations below the first one's folder, whole or not, in order."""
    try:
        names = [child.name for child in (home / GENERATIONS).iterdir() if child.is_dir()]
    except OSError:
        return []
    return sorted(int(name) for name in names if name.isdigit() and int(name) > FIRST)


def remove(home: Path, number: int) -> None:
    """Remove a generation's files; what belongs to all stays. Run again, it goes on.

    :raises OSError: something can't be removed.
    """
    root = root_of(home, number)
    if root == home:
        for child in home.iterdir():
            if child.name not in SHARED:
                durable.remove(child)
    elif root.exists():
        durable.remove(root)
        sync_folder(root.parent)
