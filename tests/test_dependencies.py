"""What bundler stands on is said twice, for pip and for pixi: the same, and all that the code imports."""

from __future__ import annotations

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import PROJECT

OUTSIDE = "data"
"""A folder of this name holds programs for other interpreters."""
BY_PIXI_ALONE = {"python", "pixi"}
"""What no wheel brings."""
BY_PIP_ALONE = {"cyclonedx-python-lib", "packageurl-python"}
"""What bills of materials are written with, on the host with a network: it doesn't travel."""

WHERE_IT_IS_THERE = {"tokenizers"}
"""What bundler uses where it happens to be installed, and does without elsewhere."""


def declared() -> dict[str, Requirement]:
    text = (PROJECT / "pyproject.toml").read_text(encoding="utf-8")
    wanted = map(Requirement, tomllib.loads(text)["project"]["dependencies"])
    return {canonicalize_name(one.name): one for one in wanted}


def imported() -> set[str]:
    """Return the distributions of the modules that bundler imports when it runs."""
    modules = set()
    for path in (PROJECT / "bundler").rglob("*.py"):
        if OUTSIDE in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                modules.add(str(node.module).partition(".")[0])
    foreign = modules - set(sys.stdlib_module_names) - {"bundler"}
    by_module = packages_distributions()
    return {canonicalize_name(name) for module in foreign for name in by_module.get(module, [module])}


def test_what_is_imported_is_declared_and_nothing_else_is() -> None:
    programs = {"conda-pack"}  # run, not imported
    assert (imported() - WHERE_IT_IS_THERE) | programs == set(declared())


@pytest.mark.parametrize("group", ["dependencies", "optional-dependencies"])
def test_no_major_version_comes_unseen(group: str) -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = {"": project[group]} if group == "dependencies" else project[group]
    lines = [line for one in groups.values() for line in one]
    open_ended = [
        line
        for line in lines
        if not line.startswith("types-") and "<" not in str(Requirement(line).specifier)
    ]
    assert not open_ended


def test_pixi_gets_what_pip_gets() -> None:
    feature = tomllib.loads((PROJECT / "pixi.toml").read_text(encoding="utf-8"))["feature"]["bundler"]
    both = feature["dependencies"] | feature["pypi-dependencies"]
    locked = {name: bounds for name, bounds in both.items() if name not in BY_PIXI_ALONE}
    assert {name: sorted(bounds.split(",")) for name, bounds in locked.items()} == {
        name: sorted(str(one.specifier).split(","))
        for name, one in declared().items()
        if name not in BY_PIP_ALONE
    }
