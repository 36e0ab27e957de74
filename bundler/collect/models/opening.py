"""From the word of ``--model`` to a source."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from bundler.collect.models.folder import FolderSource
from bundler.collect.models.specs import (
    HUB_ID,
    NAME,
    KnownSpec,
    find_spec,
    known_specs,
    load_spec,
    manifest_folders,
)
from bundler.errors import InputError
from bundler.model import HubSource, ModelSpec, Sources

if TYPE_CHECKING:
    from bundler.collect.models.source import ModelSource

SourceKind = Literal["modelscope", "huggingface", "folder"]
_HUBS: dict[str, SourceKind] = {"ms": "modelscope", "hf": "huggingface"}


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
        return FolderSource(_folder_spec(Path(word), folders), Path(word), allow_pickle)
    try:
        known = find_spec(word, folders)
    except InputError:
        if not Path(word).is_dir():
            raise
        return FolderSource(_folder_spec(Path(word), folders), Path(word), allow_pickle)
    return _open(known.spec, known.base(workspace), source, allow_pickle)


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
    name = folder.resolve().name
    if not NAME.fullmatch(name):
        raise InputError(
            f"{name!r} can't be a model's name",
            where=folder,
            hint="rename the folder with letters, digits, dots, dashes and underscores",
        )
    try:
        known: KnownSpec | None = find_spec(name, folders)
    except InputError:
        known = None
    return known.spec if known is not None else ModelSpec(name=name)
