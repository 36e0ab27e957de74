"""Who may import whom, read from the code: rooms, floors, circles, and one meaning for each class's name."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ARROWS: dict[str, set[str]] = {
    "common": set(),
    "hall": {"common"},
    "host": {"common", "hall"},
    "archive": {"common", "hall"},
    "report": {"common", "hall", "host", "archive"},
    "collect": {"common", "hall", "host", "archive"},
    "install": {"common", "hall"},
    "runtime": {"common", "hall", "host", "install"},
    "serve": {"common", "hall", "host"},
    "work": {"common", "hall", "host", "archive", "collect", "install", "runtime", "serve"},
    "cli": {"common", "hall", "host", "archive", "collect", "report", "install", "serve", "work"},
}
"""Each room, a package directly under ``bundler``, and the rooms that it may import; the lowest first.

The modules that lie in ``bundler`` itself are the ``hall``.
"""
APART = ("collect", "install", "serve")
"""Rooms that never import each other: each runs on another host, or without the others' requirements."""
ENTRANCE = "bundler.__main__"
"""Outside the rooms: it starts the command line."""

SOURCE = Path(__file__).resolve().parent.parent / "bundler"
OUTSIDE = "data"
"""A folder of this name holds programs and texts that other interpreters read."""


def modules() -> dict[str, ast.Module]:
    """Return the modules by name."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        if OUTSIDE not in parts:
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


MODULES = modules()


def is_typing(node: ast.AST) -> bool:
    """Say whether a block is read by type checkers alone."""
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports_of(tree: ast.AST) -> set[str]:
    """Return the modules that one imports when it runs, also within functions."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if is_typing(node):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute, so that they can be read here"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        found |= imports_of(node)
    return {name for name in map(known, found) if name}


def known(name: str) -> str:
    """Return the module of bundler's that a name lies in, or an empty word."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name


IMPORTS = {name: imports_of(tree) - {name} for name, tree in MODULES.items()}


def room_of(module: str) -> str:
    """Return the room of a module."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and (SOURCE / parts[1]).is_dir() else "hall"


def arrows() -> dict[tuple[str, str], list[str]]:
    """Return which rooms import which, with the modules that do."""
    found: dict[tuple[str, str], list[str]] = {}
    for module, others in IMPORTS.items():
        for other in others if module != ENTRANCE else ():
            if room_of(module) != room_of(other):
                found.setdefault((room_of(module), room_of(other)), []).append(f"{module} imports {other}")
    return found


def reachable(start: str) -> set[str]:
    """Return the modules that are imported by one, directly or by others."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for other in IMPORTS[waiting.pop()] - seen:
            seen.add(other)
            waiting.append(other)
    return seen


def circles() -> set[frozenset[str]]:
    """Return the sets of modules each of which imports all the others of its set."""
    below = {module: reachable(module) for module in MODULES}
    return {
        frozenset({other for other in below[module] if module in below[other]} | {module})
        for module in MODULES
        if module in below[module]
    }


def test_every_room_has_its_place_in_the_table() -> None:
    assert {room_of(module) for module in MODULES} == set(ARROWS)


def test_rooms_import_only_what_the_table_allows() -> None:
    wrong = [line for (room, other), lines in arrows().items() if other not in ARROWS[room] for line in lines]
    assert not wrong


def test_no_arrow_of_the_table_is_unused() -> None:
    """An arrow that nobody needs any more is taken away, so that it doesn't come back unseen."""
    assert {(room, other) for room, others in ARROWS.items() for other in others} == set(arrows())


def test_the_table_has_no_arrow_upward() -> None:
    floors = list(ARROWS)
    assert all(floors.index(other) < floors.index(room) for room in ARROWS for other in ARROWS[room])


@pytest.mark.parametrize("room", APART)
def test_rooms_that_stand_apart_never_meet(room: str) -> None:
    """Not even by way of others."""
    inside = [module for module in MODULES if room_of(module) == room]
    met = {room_of(other) for module in inside for other in reachable(module)}
    assert not met & ({*APART} - {room})


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert not circles()


def test_each_class_has_a_name_of_its_own() -> None:
    places: dict[str, list[str]] = {}
    for module, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(module)
    assert not {name: found for name, found in places.items() if len(found) > 1}
