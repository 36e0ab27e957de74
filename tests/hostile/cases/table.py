"""The table: a row is the small bundle with one lie in it, consistent in all else."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.hostile.workshop import Workshop

REFUSED = frozenset({3, 5, 6})
DAMAGED, INPUT, MISSING = frozenset({5}), frozenset({3}), frozenset({6})
SOUND = frozenset({0})
EITHER = REFUSED | SOUND
ROOM = frozenset({3, 8, 10})
"""Refused as input, for want of room, or by the installer."""
Make = Callable[[Workshop], object]


@dataclass(frozen=True)
class Case:
    """A hostile bundle, and how the commands may end on it."""

    name: str
    make: Make
    unpack: frozenset[int] = REFUSED
    verify: frozenset[int] = REFUSED
    repair: bool = False
    """Whether it lies to ``repair``, too."""


CASES: list[Case] = []


def case(name: str, make: Make, **more: Any) -> None:
    """Add a row to the table."""
    repair = "parity" in name or "in place of" in name
    CASES.append(Case(f"{len(CASES)} {name}", make, repair=repair, **more))


def _adder(unpack: frozenset[int], verify: frozenset[int]) -> Callable[[str, Make], None]:
    return lambda name, make: case(name, make, unpack=unpack, verify=verify)


sound, either = _adder(SOUND, SOUND), _adder(EITHER, EITHER)
damaged, missing, bad_input = _adder(DAMAGED, DAMAGED), _adder(MISSING, MISSING), _adder(INPUT, INPUT)
seen = _adder(SOUND, DAMAGED)
"""What ``unpack`` doesn't use, and ``verify`` reads."""
unlaunched = _adder(INPUT, SOUND)
"""What a launch may not set: whole bytes, which aren't unpacked."""
in_room, lock_of = _adder(ROOM, EITHER), _adder(ROOM, SOUND)


def change(one: Workshop, alter: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest, and seal."""
    alter(one.manifest)
    one.seal()


def manifest(alter: Callable[[dict[str, Any]], object]) -> Make:
    return lambda one: change(one, alter)


def put(*keys: str | int, value: Any) -> Make:
    """Set a value deep in the manifest."""

    def alter(node: Any) -> None:
        for key in keys[:-1]:
            node = node[key]
        node[keys[-1]] = value

    return manifest(alter)


def sparse(name: str, size: int) -> Make:
    """Let a small file say that it is large; it takes no room on the disk."""

    def make(one: Workshop) -> None:
        os.truncate(one.bundle / name, size)

    return make
