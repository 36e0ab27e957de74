"""What the documents name is there, and their tables say what the code says."""

from __future__ import annotations

import re
import tomllib
import typing
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from bundler import __version__
from bundler.cli.main import COMMANDS, MODULES
from bundler.manifest import Manifest
from bundler.model import ModelSpec
from tests.test_architecture import ARROWS

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).resolve().parent.parent
DOCUMENTS = (
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md"),
    *("docs/ARCHITECTURE.md", "docs/FORMAT.md", "docs/GPU.md", "docs/JSON.md", "docs/MODELS.md"),
    *("docs/REPORT.md", "docs/SECURITY.md", "docs/SERVING.md", "docs/SPEED.md", "docs/UPDATING.md"),
)
SIDES = {"online": "Online host", "either": "Bundle", "air-gapped": "Air-gapped host", "any": "Any host"}
"""README's word for each group of commands."""

ENDINGS = "py|md|toml|lock|sh|j2"
FOLDERS = "bundler|tests|docs|manifests|benchmarks"
INSIDE = rf"(?<![\w./-])(?:{FOLDERS})/[\w.@-]+(?:/[\w.@-]+)*"
"""A path in one of the repository's folders; ``bundler/`` alone says nothing."""
COMMAND = re.compile(r"(?:^ *|[;&(/] *)bundler ([a-z]+)", re.MULTILINE)
"""``bundler WORD`` where a shell would take it for a command."""
FILE = re.compile(rf"`(\w[\w-]*\.(?:{ENDINGS}))`")
"""A file that is called by its name alone."""


def text_of(name: str) -> str:
    return (PROJECT / name).read_text(encoding="utf-8")


def code_of(text: str) -> str:
    """Return what stands in code: fenced blocks and spans, a line each."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```\w*\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return "\n".join([*blocks, *re.findall(r"`([^`]+)`", rest)])


def anchor(heading: str) -> str:
    """Return what a link to a heading is called."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def rows(text: str, first: str) -> list[list[str]]:
    """Return the rows of the table whose head begins with a word."""
    lines = text[text.index(f"| {first} |") :].partition("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def pattern(path: str) -> str:
    """Return a path as a pattern: a word in capitals stands for any name, as in ``manifests/NAME.toml``."""
    return re.sub(r"\b[A-Z]{2,}\b(?!\.md)", "*", path)


def words(cell: str) -> list[str]:
    return re.findall(r"`([\w-]+)`", cell)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_path_is_there(name: str) -> None:
    paths = {path.rstrip(".") for path in re.findall(INSIDE, text_of(name))}
    assert not [path for path in paths if not list(PROJECT.glob(pattern(path)))]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_file_is_there(name: str) -> None:
    folders = [PROJECT / folder for folder in FOLDERS.split("|")]
    names = set(FILE.findall(text_of(name)))
    gone = [
        one
        for one in names
        if not (PROJECT / one).is_file() and not any(list(folder.rglob(pattern(one))) for folder in folders)
    ]
    assert not gone


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_leads_somewhere(name: str) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text_of(name)):
        path, _, part = target.partition("#")
        file = (PROJECT / name).parent / path if path else PROJECT / name
        assert file.is_file(), target
        if part:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert part in map(anchor, headings), target


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_command_exists(name: str) -> None:
    """Of bundler, of the Makefile, of ``python -m``, and the markers of pytest."""
    code = code_of(text_of(name))
    assert set(re.findall(COMMAND, code)) <= {*MODULES}
    targets = set(re.findall(r"^([a-z]+):", text_of("Makefile"), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)", code)) <= targets
    for module in re.findall(r"python -m ([\w.]+)", code):
        path = PROJECT / module.replace(".", "/")
        assert module == "pytest" or path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()
    options = tomllib.loads(text_of("pyproject.toml"))["tool"]["pytest"]["ini_options"]
    markers = {marker.partition(":")[0] for marker in options["markers"]}
    assert set(re.findall(r"ARGS='-m (\w+)'", code)) <= markers


def test_readme_lists_the_commands_where_they_are_used() -> None:
    found: dict[str, list[str]] = {}
    side = ""
    for where, names, _ in rows(text_of("README.md"), "where"):
        side = where or side
        found.setdefault(SIDES[side], []).extend(words(names))
    assert {group: sorted(names) for group, names in found.items()} == {
        group: sorted(names) for group, names in COMMANDS.items()
    }


@pytest.mark.parametrize(("command", "option"), [("doctor", "--api-key-file"), ("serve", "--keep-env")])
def test_readme_names_what_changes_who_may_ask_and_what_the_server_sees(command: str, option: str) -> None:
    """Keys and variables are what one must not have to find out by trying."""
    (text,) = [text for _, names, text in rows(text_of("README.md"), "where") if f"`{command}`" in names]
    assert option in text


def test_the_table_of_rooms_is_the_one_that_the_code_is_held_to() -> None:
    table = rows(text_of("docs/ARCHITECTURE.md"), "room")
    assert {room: set(words(others)) for (room,), others in _named(table)} == ARROWS
    assert [room for (room,), _ in _named(table)] == [*ARROWS], "the lowest comes first"


def _named(table: list[list[str]]) -> list[tuple[list[str], str]]:
    return [(words(room), others) for room, _, others in table]


def test_every_key_of_a_models_manifest_is_told() -> None:
    told = {
        key for first, _ in rows(text_of("docs/MODELS.md"), "key") for key in re.findall(r"`([^`]+)`", first)
    }
    assert told == set(_keys(ModelSpec, ""))


def test_every_key_of_a_bundles_manifest_is_told() -> None:
    """Those of a model's ``spec`` are told beside the manifests that they come from."""
    told = set(re.findall(r"[\w-]+", text_of("docs/FORMAT.md")))
    keys = {key for key in _keys(Manifest, "") if not key.startswith("models.spec.")}
    assert {part for key in keys for part in key.split(".")} - told == set()


def _keys(struct: type[msgspec.Struct], before: str) -> Iterator[str]:
    """Yield a manifest's keys with dots between; of a table its own, of several tables itself, too."""
    for one in msgspec.structs.fields(struct):
        name = before + one.encode_name
        inner = [part for part in (one.type, *typing.get_args(one.type)) if _is_struct(part)]
        if not inner or typing.get_origin(one.type) is tuple:
            yield name
        for part in inner:
            yield from _keys(part, f"{name}.")


def _is_struct(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def test_the_example_of_a_manifest_is_read() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", text_of("docs/MODELS.md"), re.DOTALL)
    spec = msgspec.toml.decode(example, type=ModelSpec)
    assert spec.name == "My-Model" and spec.smoke.tools


def test_the_changelog_begins_with_this_version() -> None:
    versions = re.findall(r"^## \[([^\]]+)\]", text_of("CHANGELOG.md"), re.MULTILINE)
    project = tomllib.loads(text_of("pyproject.toml"))["project"]
    assert next(one for one in versions if one != "Unreleased") == __version__ == project["version"]


def test_the_licence_is_the_one_that_the_package_states_and_ships() -> None:
    project = tomllib.loads(text_of("pyproject.toml"))["project"]
    assert (project["license"], project["license-files"]) == ("Apache-2.0", ["LICENSE"])
    text = text_of("LICENSE")
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert not re.search(r"Copyright (?:\(c\) )?\d", text)
