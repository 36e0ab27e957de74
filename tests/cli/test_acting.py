"""The first line of each command that changes something says what it acts on, before anything is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bundler.archive.writer import write_bundle
from tests.archive.make import make_tree, recipe_of
from tests.cli.conftest import run_bundler

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("words", [("fetch",), ("pack",), ("clean",), ("rehearse", "--env", "default")])
def test_workspace(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = run_bundler(*words, cwd=tmp_path)
    assert done.returncode != 0, "an empty folder is no workspace"
    assert done.stderr.splitlines()[0] == f"workspace: {tmp_path}"
    named = run_bundler(*words, "-C", "elsewhere", cwd=tmp_path)
    assert named.stderr.splitlines()[0] == f"workspace: {tmp_path / 'elsewhere'}"


@pytest.mark.parametrize("words", [("repair",), ("sign", "--key", "none")])
def test_bundle(tmp_path: Path, words: tuple[str, ...]) -> None:
    write_bundle(recipe_of(make_tree(tmp_path / "sources")), [tmp_path / "disk" / "bundle"])
    done = run_bundler(*words, "disk", cwd=tmp_path)
    assert done.stderr.splitlines()[0] == f"bundle: {tmp_path / 'disk' / 'bundle'}"


def test_unpack_says_from_where_to_where(tmp_path: Path) -> None:
    write_bundle(recipe_of(make_tree(tmp_path / "sources")), [tmp_path / "disk" / "bundle"])
    done = run_bundler("unpack", "disk", "to", cwd=tmp_path)
    assert done.stderr.splitlines()[0] == "unpacking little from disk/bundle to to"
