"""Whether a bundle is finished in its folders already, told by the log that was written beside it."""

from __future__ import annotations

import contextlib
import hashlib
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bundler import manifest as manifests
from bundler.archive import sums
from bundler.archive.bundle import Bundle, is_bundle
from bundler.archive.recipe import current_writer
from bundler.archive.volume_check import check_volumes
from bundler.common.broken import BROKEN_JSON
from bundler.common.digest import sha256_of
from bundler.errors import BundlerError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bundler.archive.recipe import Recipe
    from bundler.manifest import Manifest


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """``pack-log.json``: what differs from run to run, and so is outside the sums."""

    recipe: str
    """What the bundle was made from, as one digest: packing the same again finds it finished."""
    finished: str
    """UTC, ISO 8601."""
    host: str
    folders: tuple[str, ...]


def log_of(recipe: Recipe, key: str, folders: Iterable[Path]) -> bytes:
    """Return the log of a bundle that is being finished.

    :param key: the stream's, as :func:`bundler.archive.recipe.stream_key` gives it.
    :param folders: where its volumes lie.
    """
    log = Log(
        recipe=_recipe_digest(recipe, key),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        host=platform.node(),
        folders=tuple(map(str, folders)),
    )
    return msgspec.json.format(msgspec.json.encode(log)) + b"\n"


def find_finished(recipe: Recipe, key: str, folders: Sequence[Path]) -> Manifest | None:
    """Return the manifest of the bundle in these folders if it is finished and of this very recipe."""
    there = [folder for folder in folders if is_bundle(folder)]
    with contextlib.suppress(BundlerError, OSError, IndexError, *BROKEN_JSON):
        log = msgspec.json.decode((there[0] / sums.LOG).read_bytes(), type=Log)
        if log.recipe == _recipe_digest(recipe, key):
            with Bundle.open(there) as bundle:
                check_volumes(bundle)
                return bundle.manifest
    return None


def _recipe_digest(recipe: Recipe, key: str) -> str:
    digest = hashlib.sha256(key.encode())
    head = msgspec.structs.replace(recipe.head, writer=current_writer())
    digest.update(manifests.encode(head))
    digest.update(repr((recipe.notes, sorted(recipe.companions))).encode())
    if recipe.parity:
        digest.update(f"parity {recipe.parity}".encode())
    for _, source in sorted(recipe.companions.items(), key=lambda pair: pair[0]):
        digest.update(digest_of(source).encode())
    return digest.hexdigest()


def digest_of(source: Path | bytes) -> str:
    """Return the sha256 of a companion, a file or its content."""
    return sha256_of(source) if isinstance(source, Path) else hashlib.sha256(source).hexdigest()
