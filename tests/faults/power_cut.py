"""A power cut, played: what was not synced is kept, dropped, cut or zeroed."""

from __future__ import annotations

import os
import shutil
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from tests.faults.disk import Crash, Inode


def power_cut(root: Path, crash: Crash, chance: random.Random, *, worst: bool = False) -> int:
    """Make a folder what a power cut leaves of it, and return how many names and contents were lost.

    Names change in order, as a file system's journal writes them down: those before some moment are kept.
    Later ones are kept where their folder was synced. A file that wasn't synced since it was written has its
    time and, by chance, its size, and zeros for bytes.

    :param worst: nothing is kept but what was synced.
    """
    if not worst and chance.random() < 0.25:
        return 0
    kept_until = 0 if worst else chance.randint(0, len(crash.steps))
    names, lost = dict(crash.before), 0
    for number, step in enumerate(crash.steps):
        if not step.durable and number >= kept_until:
            lost += 1
        elif step.kind == "rename":
            _move(names, step.source, step.path, step.inode)
        elif step.kind == "remove":
            names.pop(step.path, None)
        else:
            names[step.path] = step.inode
    contents = {number: _left(one, chance, worst=worst) for number, one in crash.inodes.items()}
    lost += sum(contents[number] != one.current for number, one in crash.inodes.items())
    _lay_out(root, names, crash.inodes, contents)
    return lost


def _move(names: dict[str, int], source: str, target: str, inode: int) -> None:
    for name in [name for name in names if name.startswith(source + "/")]:
        names[target + name[len(source) :]] = names.pop(name)
    names.pop(source, None)
    names[target] = inode


def _left(one: Inode, chance: random.Random, *, worst: bool) -> bytes:
    if not stat.S_ISREG(one.mode) or one.synced == one.current:
        return one.current
    synced, size = one.synced or b"", len(one.current)
    way = "dropped" if worst else chance.choice(["kept", "dropped", "cut", "zeroed"])
    if way == "kept":
        return one.current
    if way == "dropped":
        return synced
    pairs = zip(synced, one.current, strict=False)
    same = next((at for at, (old, new) in enumerate(pairs) if old != new), min(len(synced), size))
    if way == "cut":
        return one.current[: chance.randint(same, size)]
    begin = chance.randint(same, size)
    return one.current[:begin] + bytes(size - begin)


def _lay_out(root: Path, names: dict[str, int], inodes: dict[int, Inode], contents: dict[int, bytes]) -> None:
    for child in root.iterdir():
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink()
    folders = []
    for path, number in sorted(names.items()):
        one = inodes.get(number)
        # What is in a folder whose own name was lost is lost with it.
        if one is None or not os.path.isdir(os.path.dirname(path)):
            continue
        if stat.S_ISDIR(one.mode):
            os.mkdir(path)
            folders.append((path, one.mode))
        elif stat.S_ISLNK(one.mode):
            os.symlink(contents[number].decode(), path)
        else:
            with open(path, "wb") as file:
                file.write(contents[number])
            os.chmod(path, stat.S_IMODE(one.mode))
            os.utime(path, ns=(one.mtime_ns, one.mtime_ns))
    for path, mode in folders:
        os.chmod(path, stat.S_IMODE(mode))
