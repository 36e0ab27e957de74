"""Python code that a model brings: whether it is code at all, and what of the model's it imports."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from bundler.collect.models.small_files import wrong_kind

if TYPE_CHECKING:
    from collections.abc import Iterator


def code_fault(data: bytes) -> str | None:
    """Say why a file is no Python module; ``None`` where it is one."""
    if not data.strip():
        return "is empty"
    problem = wrong_kind(data)
    if problem is not None:
        return problem
    try:
        ast.parse(data)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as found:
        line = f", line {found.lineno}" if isinstance(found, SyntaxError) and found.lineno else ""
        return f"is no Python code: {getattr(found, 'msg', None) or found}{line}"
    return None


def imported_beside(data: bytes) -> Iterator[str]:
    """Yield the files beside a module that it can't do without, as paths; what it only tries is left out."""
    for node in _without_tries(ast.parse(data)):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            names = [node.module] if node.module else [alias.name for alias in node.names]
            yield from (f"{name.replace('.', '/')}.py" for name in names)


def _without_tries(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.Try):
            yield from _without_tries(child)
