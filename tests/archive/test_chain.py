"""Files and volumes are hashed many at once, behind what passes: the same bytes, none believed unseen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from bundler.archive import chain
from bundler.archive.member import FileSource
from bundler.archive.writer import write_bundle
from bundler.errors import DamagedError
from tests.archive.make import files_of, make_tree, recipe_of

if TYPE_CHECKING:
    from pathlib import Path

THREADS = 12
"""So many that several files and volumes are hashed at once."""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "tree")


@pytest.mark.parametrize("waiting", [0, 1, 4])
def test_chains_that_are_behind_give_the_same_bytes(
    tree: Path, tmp_path: Path, waiting: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(recipe_of(tree), [tmp_path / "one"], threads=1)
    monkeypatch.setattr(chain, "_WAITING", waiting)
    opened = []

    def watched(self: FileSource) -> Any:
        opened.append(self.path.name)
        return real(self)

    real = FileSource.open
    monkeypatch.setattr(FileSource, "open", watched)
    write_bundle(recipe_of(tree), [tmp_path / "many"], threads=THREADS)
    assert files_of(tmp_path / "many") == files_of(tmp_path / "one")
    if not waiting:
        assert opened.count("file-6") == 2
        assert "data-00001.tar.zst.partial" in opened


@dataclass(frozen=True, slots=True)
class Shifting(FileSource):
    """A file that is another one when it is read again."""

    opened: list[int]

    def open(self) -> Any:
        self.opened.append(1)
        if len(self.opened) == 2:
            data = self.path.read_bytes()
            self.path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
        return self.path.open("rb", buffering=0)


def test_a_file_that_changed_between_both_readings_is_named(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its digest would be of other bytes than those that were packed."""
    monkeypatch.setattr(chain, "_WAITING", 0)
    recipe = recipe_of(tree)
    members: list[Any] = [*recipe.members]
    for number, member in enumerate(members):
        if member.path.endswith("file-6"):
            source = Shifting(member.source.path, [])
            members[number] = type(member)(member.path, "file", member.size, source=source)
    changed = type(recipe)(**{**vars(recipe), "members": members})
    with pytest.raises(DamagedError, match="file-6 changed while it was packed"):
        write_bundle(changed, [tmp_path / "b"], threads=THREADS)
    # It is found whole the next time, and nothing of what it was is left in the bundle.
    write_bundle(recipe_of(tree), [tmp_path / "whole"])
    write_bundle(recipe_of(tree), [tmp_path / "b"], threads=THREADS)
    assert files_of(tmp_path / "b") == files_of(tmp_path / "whole")
