"""From the word of ``--model`` to a source: manifests are TOML files, found by name, read strictly."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
import tomli

import bundler
from bundler.collect.models.cache_folder import cached_model, snapshot_of
from bundler.collect.models.folder import FolderSource
from bundler.common.broken import BROKEN_TEXT
from bundler.errors import InputError, UnknownNameError
from bundler.model import HubSource, ModelSpec, Sources

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bundler.collect.models.source import ModelSource

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""What may be a model's name: it becomes a folder's."""
HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
SourceKind = Literal["modelscope", "huggingface", "folder"]
_HUBS: dict[str, SourceKind] = {"ms": "modelscope", "hf": "huggingface"}
GPU_FAMILIES = ("ampere", "ada", "hopper", "blackwell")

_UNKNOWN_KEY = re.compile(r"Object contains unknown field `(?P<key>[^`]*)`")
_MISSING_KEY = re.compile(r"Object missing required field `(?P<key>[^`]*)`")
_PLACE = re.compile(r" - at `\$(?P<place>[^`]*)`$")


@dataclass(frozen=True, slots=True)
class KnownSpec:
    """A manifest that was found, and its file."""

    spec: ModelSpec
    path: Path

    @property
    def words(self) -> tuple[str, ...]:
        """The names that ``--model`` accepts for it, as the manifest spells them."""
        return (self.spec.name, *self.spec.aliases)

    def base(self, workspace: Path) -> Path:
        """Return what ``source.folder`` is relative to: the manifest's folder.

        For a manifest that is shipped with bundler it is the workspace's ``manifests``, whether there or not.
        """
        return workspace / "manifests" if self.path.parent == _shipped() else self.path.parent


def manifest_folders(workspace: Path | None = None) -> tuple[Path, ...]:
    """Return where manifests lie: the workspace's own first, then those shipped with bundler."""
    own = workspace / "manifests" if workspace is not None else None
    found = [place.resolve() for place in (own, _shipped()) if place is not None and place.is_dir()]
    return tuple(dict.fromkeys(found))


def _shipped() -> Path | None:
    """Return the manifests that came with bundler: in the package, or in the checkout it runs from."""
    package = Path(bundler.__file__).resolve().parent
    places = [package / "_manifests", package.parent / "manifests"]
    return next((place for place in places if place.is_dir()), None)


def open_model(
    word: str, *, workspace: Path, source: SourceKind | None = None, allow_pickle: bool = False
) -> ModelSource:
    """Return the source that a word names; nothing is asked of a hub yet.

    :param word: a manifest's name or alias, ``PATH.toml``, ``hf:OWNER/NAME@REV``, ``ms:OWNER/NAME@REV`` or a
        folder.
    :param workspace: its ``manifests`` folder comes before those shipped.
    :param source: which of the manifest's sources; the first that it has where not set.
    :param allow_pickle: accept a checkpoint of pickles.
    :raises UnknownNameError: the word names nothing; it lists what is known.
    :raises InputError: the manifest can't be used, or lacks that source.
    """
    folders = manifest_folders(workspace)
    prefix, colon, rest = word.partition(":")
    if colon and prefix in _HUBS:
        spec = _hub_spec(_HUBS[prefix], rest, folders)
        return _open(spec, workspace, _HUBS[prefix], allow_pickle)
    if word.endswith(".toml"):
        return _open(load_spec(Path(word)), Path(word).parent, source, allow_pickle)
    if ("/" in word or word.startswith(".")) and Path(word).is_dir():
        return _in_folder(Path(word), folders, allow_pickle)
    try:
        known = find_spec(word, folders)
    except InputError:
        if not Path(word).is_dir():
            raise
        return _in_folder(Path(word), folders, allow_pickle)
    return _open(known.spec, known.base(workspace), source, allow_pickle)


def _in_folder(folder: Path, folders: tuple[Path, ...], allow_pickle: bool) -> FolderSource:
    """Return a folder as a source; of a model in Hugging Face's cache its snapshot."""
    snapshot = snapshot_of(folder)
    return FolderSource(_folder_spec(snapshot, folders), snapshot, allow_pickle)


def _open(spec: ModelSpec, base: Path, wanted: SourceKind | None, allow_pickle: bool) -> ModelSource:
    kinds: tuple[SourceKind, ...] = ("modelscope", "huggingface", "folder")
    have = [kind for kind in kinds if getattr(spec.source, kind) is not None]
    if not have or (wanted is not None and wanted not in have):
        raise InputError(
            f"the manifest of {spec.name} names no source" + (f" {wanted!r}" if wanted else ""),
            hint=f"it has: {', '.join(have)}" if have else "add source.modelscope, .huggingface or .folder",
        )
    kind = wanted or have[0]
    if kind == "folder":
        return FolderSource(spec, Path(os.path.normpath(base / str(spec.source.folder))), allow_pickle)
    from bundler.collect.models.hub import HubModel
    from bundler.collect.models.huggingface import HuggingFaceClient
    from bundler.collect.models.modelscope import ModelScopeClient

    place = getattr(spec.source, kind)
    client = ModelScopeClient() if kind == "modelscope" else HuggingFaceClient()
    return HubModel(spec, client, place, allow_pickle)


def _hub_spec(kind: SourceKind, text: str, folders: tuple[Path, ...]) -> ModelSpec:
    """Return the spec of ``OWNER/NAME@REV``: that of the manifest with that id, else with that name."""
    hub_id, at, revision = text.partition("@")
    if not HUB_ID.fullmatch(hub_id) or (at and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/+-]*", revision)):
        raise InputError(f"{text!r} is not OWNER/NAME or OWNER/NAME@REVISION", where=f"--model of {kind}")
    place = HubSource(id=hub_id, revision=revision or None)
    sources = _sources(kind, place)
    known_ones = known_specs(folders)[0]
    for known in known_ones:
        named = getattr(known.spec.source, kind)
        if named is not None and named.id.lower() == hub_id.lower():
            pinned = place if revision else named
            return msgspec.structs.replace(known.spec, source=_sources(kind, pinned))
    name = hub_id.rpartition("/")[2]
    for known in known_ones:
        if name.lower() == known.spec.name.lower():
            return msgspec.structs.replace(known.spec, source=sources)
    return ModelSpec(name=name, source=sources)


def _sources(kind: SourceKind, place: HubSource) -> Sources:
    return Sources(modelscope=place) if kind == "modelscope" else Sources(huggingface=place)


def _folder_spec(folder: Path, folders: tuple[Path, ...]) -> ModelSpec:
    """Return the spec of a folder: that of the manifest which has its name, if there is one."""
    name = (cached_model(folder) or folder.resolve()).name
    if name.startswith("models--"):
        name = name.rpartition("--")[2]
    if not NAME.fullmatch(name):
        raise InputError(
            f"{name!r} can't be a model's name",
            where=folder,
            hint="rename the folder with letters, digits, dots, dashes and underscores",
        )
    try:
        return find_spec(name, folders).spec
    except InputError:
        return ModelSpec(name=name)


def load_spec(path: Path) -> ModelSpec:
    """Read one manifest.

    :raises InputError: it can't be read; a syntax error, with its line; an unknown key or a wrong value, with
        its key.
    """
    try:
        document = tomli.loads(path.read_text("utf-8"))
    except OSError as problem:
        raise InputError(f"can't read the model manifest: {problem.strerror}", where=path) from problem
    except UnicodeDecodeError as problem:
        what = f"the model manifest is not UTF-8 (byte {problem.start})"
        raise InputError(what, where=path, hint="save it as UTF-8") from problem
    except BROKEN_TEXT as problem:
        what = f"the model manifest is not TOML: {problem}"
        raise InputError(what, where=path, hint="mend that line") from problem
    unusable = "the model manifest can't be used"
    try:
        spec = msgspec.convert(document, type=ModelSpec)
    except msgspec.ValidationError as problem:
        finding, hint = _explained(problem)
        raise InputError(unusable, where=path, hint=hint, findings=[finding]) from problem
    if findings := list(_oddities(spec)):
        raise InputError(unusable, where=path, findings=findings)
    return spec


def known_specs(folders: Sequence[Path]) -> tuple[list[KnownSpec], list[InputError]]:
    """Return every manifest of the folders, by name, and the errors of those that can't be read.

    A name that an earlier folder has hides the same name in a later one.
    """
    found: dict[str, KnownSpec] = {}
    problems = []
    for folder in folders:
        for path in sorted(folder.glob("*.toml")):
            try:
                spec = load_spec(path)
            except InputError as problem:
                problems.append(problem)
            else:
                found.setdefault(spec.name.lower(), KnownSpec(spec, path))
    return sorted(found.values(), key=lambda known: known.spec.name.lower()), problems


def find_spec(word: str, folders: Sequence[Path]) -> KnownSpec:
    """Return the manifest of a name or alias, upper or lower case.

    :raises UnknownNameError: none has that name; it lists those that there are, nearest first.
    :raises InputError: the manifest that the name's own file holds can't be read.
    """
    known, problems = known_specs(folders)
    for one in known:
        if word.lower() in {name.lower() for name in one.words}:
            return one
    for problem in problems:
        if Path(str(problem.where)).stem.lower() == word.lower():
            raise problem
    words = {name.lower(): one.spec.name for one in known for name in one.words}
    near = difflib.get_close_matches(word.lower(), words, n=3, cutoff=0.5)
    nearest = list(dict.fromkeys(words[name] for name in near))
    meant = f"; did you mean {' or '.join(nearest)}?" if nearest else ""
    names = ", ".join(one.spec.name for one in known) or "none"
    raise UnknownNameError(
        f"no model {word!r}{meant}",
        hint=f"known are: {names}; PATH.toml, a folder, hf:OWNER/NAME@REV and ms:OWNER/NAME@REV work too",
        findings=[f"can't be read: {problem.where}" for problem in problems],
    )


def _explained(problem: msgspec.ValidationError) -> tuple[str, str | None]:
    """Return msgspec's complaint with the key as the manifest spells it, and what to do."""
    text = str(problem)
    place = _PLACE.search(text)
    at = place["place"].lstrip(".") if place else ""
    text = _PLACE.sub("", text)
    if unknown := _UNKNOWN_KEY.search(text):
        key = ".".join(part for part in (at, unknown["key"]) if part)
        near = difflib.get_close_matches(unknown["key"], sorted(set(_all_keys(ModelSpec))), n=1)
        return f"unknown key: {key}", f"did you mean {near[0]}?" if near else "remove it"
    if missing := _MISSING_KEY.search(text):
        return f"missing key: {'.'.join(part for part in (at, missing['key']) if part)}", "add it"
    return f"{at or 'the document'}: {text[0].lower()}{text[1:]}", None


def _all_keys(kind: object) -> Iterator[str]:
    """Yield every key of a schema."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        for field in msgspec.structs.fields(kind):
            yield field.encode_name
            yield from _all_keys(field.type)
    for part in getattr(kind, "__args__", ()):
        yield from _all_keys(part)


def _oddities(spec: ModelSpec) -> Iterator[str]:
    """Yield what the schema can't express."""
    if not NAME.fullmatch(spec.name):
        yield f"name: {spec.name!r} can't be a folder's name"
    for hub, source in (("modelscope", spec.source.modelscope), ("huggingface", spec.source.huggingface)):
        if source is not None and not HUB_ID.fullmatch(source.id):
            yield f"source.{hub}.id: {source.id!r} is not OWNER/NAME"
    for number, variant in enumerate(spec.launch.variants):
        for family in variant.gpu_families:
            if family not in GPU_FAMILIES:
                known = ", ".join(GPU_FAMILIES)
                yield f"launch.variants[{number}].gpu-families: {family!r} is none of {known}"
    tables = {f"launch.variants[{number}]": one.flags for number, one in enumerate(spec.launch.variants)}
    for place, flags in {"launch": spec.launch.flags, **tables}.items():
        for flag in flags:
            if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", flag):
                yield f"{place}.flags: {flag!r} is not a flag of sglang.launch_server without its dashes"
