"""What the words of ``unpack`` mean: which is the bundle, which the destination, and which is neither."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bundler.archive.bundle import Bundle, find_bundle
from bundler.archive.writer import write_bundle
from bundler.errors import DestinationError, UnknownNameError, UsageError
from bundler.work.places import default_destination, sort_places
from tests.archive.make import make_tree, recipe_of
from tests.cli.conftest import run_bundler


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that one is in, with ``bundle`` in it."""
    write_bundle(recipe_of(make_tree(tmp_path / "sources")), [tmp_path / "here" / "bundle"])
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("BUNDLER_HOME", raising=False)
    monkeypatch.delenv("BUNDLER_BUNDLE", raising=False)
    return tmp_path / "here"


def sort(*words: str) -> tuple[list[Path], Path | None]:
    return sort_places([Path(word) for word in words])


def test_good_words(place: Path) -> None:
    assert sort("bundle", "new") == ([Path("bundle")], Path("new"))
    assert sort("bundle") == ([Path("bundle")], None)
    assert sort("new") == ([place / "bundle"], Path("new"))
    assert sort("bundle-installed")[1] == Path("bundle-installed"), "made of the bundle's name, not misspelt"
    shutil.copytree("bundle", "disk/bundle")
    assert sort("bundle", "disk", "to") == ([Path("bundle"), Path("disk/bundle")], Path("to"))


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("words", "kind", "what", "hint"),
    [
        (["bundel"], UnknownNameError, "no such bundle", "did you mean bundle"),
        (["./nothing/bundle", "to"], UnknownNameError, "no such folder", "did you mean"),
        (["bundle", "bundle"], UsageError, "named twice", "bundler unpack bundle DEST"),
        (["empty", "bundle"], UsageError, "destination comes last", "bundler unpack bundle empty"),
        (["bundle/manifest.json"], UnknownNameError, "not its folder", "bundler unpack bundle"),
        (["bundle/data-00001.tar.zst", "to"], UnknownNameError, "not its folder", "bundler unpack bundle"),
        (["half"], UnknownNameError, "not a whole bundle", "copy the bundle again"),
    ],
)
def test_words_that_mean_nothing(words: list[str], kind: type[Exception], what: str, hint: str) -> None:
    Path("empty").mkdir()
    Path("half").mkdir()
    shutil.copy("bundle/manifest.json", "half")
    with pytest.raises(kind, match=what) as refused:
        sort(*words)
    assert hint in str(refused.value)


def test_the_bundles_own_disk_is_not_filled_unasked(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Bundle.open([Path("bundle")]) as bundle:
        with pytest.raises(DestinationError, match="own disk") as refused:
            default_destination(bundle)
        assert "bundler unpack bundle /" in str(refused.value)
        monkeypatch.setenv("BUNDLER_HOME", "asked-for")
        assert default_destination(bundle) == Path("asked-for")
    inside = run_bundler("unpack", "--no-install", cwd=place / "bundle")
    assert inside.returncode == 9
    assert f"bundler unpack {place / 'bundle'} /" in inside.stderr


def test_what_pack_wrote_is_found(place: Path) -> None:
    Path("bundles").mkdir()
    Path("bundle").rename("bundles/little")
    assert find_bundle() == place / "bundles/little"
    done = run_bundler("unpack", "--no-install", "--skip-preflight", cwd=place)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[0] == (
        f"unpacking little from {place / 'bundles/little'} to little-installed"
    )
    assert (place / "little-installed/.bundler/receipt.json").is_file()
    assert run_bundler("inspect", cwd=place).returncode == 0
