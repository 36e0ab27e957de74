"""A model that lies in a folder of this host."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, NoReturn

from bundler.archive.member import FileSource
from bundler.collect.models.cache_folder import cached_model
from bundler.collect.models.completeness import MEND
from bundler.collect.models.listing import ListedFile, Listing, is_stranger, is_wanted, select
from bundler.collect.models.source import JOBS
from bundler.common.progress import SILENT
from bundler.errors import DamagedError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bundler.archive.member import Source
    from bundler.common.progress import Reporter
    from bundler.model import FileSelection, ModelSpec


@dataclass(frozen=True)
class FolderSource:
    """A folder, taken as is: nothing is copied, and nobody promises hashes."""

    spec: ModelSpec
    folder: Path
    allow_pickle: bool = False
    all_files: bool = False
    origin: str = field(default="folder", init=False)
    mend: ClassVar[str] = MEND

    @cached_property
    def listing(self) -> Listing:
        """The wanted files; links are followed once, and none out of the folder.

        :raises InputError: there is no such folder, or it holds nothing that is wanted.
        :raises DamagedError: links that lead out or nowhere, and things that are no files.
        """
        if not self.folder.is_dir():
            raise InputError(
                "there is no such model folder",
                where=self.folder,
                hint=f"put {self.spec.name}'s files there, or name the folder they are in: --model FOLDER",
            )
        if not any(self.folder.iterdir()):
            raise InputError(
                "the model's folder is empty", where=self.folder, hint="name the one that holds config.json"
            )
        return select(
            Listing(
                scan(self.folder, self.spec.files),
                self.folder.resolve().name if cached_model(self.folder) else None,
            ),
            self.spec.files,
            where=self.folder,
            read=lambda file: (self.folder / file.path).read_bytes(),
            allow_pickle=self.allow_pickle,
            all_files=self.all_files,
        )

    def with_all_files(self) -> FolderSource:
        """Return the source with the weights, too, that the server doesn't load."""
        return replace(self, all_files=True)

    def missing(self, weights: Path) -> list[ListedFile]:
        """Return nothing: the files are where they are."""
        return []

    def fetch(
        self, weights: Path, *, reporter: Reporter = SILENT, jobs: int = JOBS, rehash: bool = False
    ) -> Path:
        """Return the folder; nothing is copied."""
        if self.listing.left_out:
            reporter.say(self.listing.left_out_text)
        return self.folder

    def members(self, weights: Path) -> dict[str, tuple[Source, str | None]]:
        """Return the files where they lie."""
        return {file.path: (FileSource(self.folder / file.path), None) for file in self.listing.files}

    def stream(self) -> NoReturn:
        """Refuse, by :class:`InputError`: there is nothing to stream."""
        raise InputError(
            "a model in a folder is read where it lies: there is nothing to stream",
            where=self.folder,
            hint="leave --stream out",
        )


NOWHERE = "a link that leads nowhere"


def scan(root: Path, selection: FileSelection) -> tuple[ListedFile, ...]:
    """Return the files below a folder that are wanted, by path.

    :raises DamagedError: links that lead out or nowhere, and things that are neither file nor folder; all
        of them at once.
    """
    top = cached_model(root) or root.resolve()
    found: list[tuple[str, str]] = []
    files = sorted(
        file for file in _walk(root, "", top, (root.resolve(),), found) if is_wanted(file.path, selection)
    )
    findings = [f"{path}: {what}" for path, what in found if is_wanted(path, selection)]
    if findings:
        hint = "copy it with the files in place of links (`cp -rL FOLDER ELSEWHERE`)"
        if all(finding.endswith(NOWHERE) for finding in findings):
            hint = "copy the folder again from where it is whole, `cp -rL`: what they lead to isn't here"
        raise DamagedError(
            "the model folder holds what can't be carried",
            where=root,
            hint=f"{hint}, or exclude them in the manifest's files.exclude",
            findings=findings[:20],
        )
    return tuple(files)


def _walk(
    folder: Path, prefix: str, top: Path, above: tuple[Path, ...], findings: list[tuple[str, str]]
) -> Iterator[ListedFile]:
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = prefix + entry.name
        place = folder / entry.name
        if is_stranger(path):
            continue
        try:
            target = place.resolve(strict=True)
        except (OSError, RuntimeError):
            findings.append((path, NOWHERE))
            continue
        if entry.is_symlink() and not target.is_relative_to(top):
            findings.append((path, f"a link out of the folder, to {place.readlink()}"))
            continue
        mode = target.stat().st_mode
        if stat.S_ISREG(mode):
            yield ListedFile(path, target.stat().st_size)
        elif not stat.S_ISDIR(mode):
            findings.append((path, "neither a file nor a folder"))
        elif target in above:
            findings.append((path, "a link to a folder that it lies in"))
        else:
            yield from _walk(place, f"{path}/", top, (*above, target), findings)
