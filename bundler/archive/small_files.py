"""What a bundle has besides its volumes: manifest, sums, README.txt, log and companions."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bundler import manifest as manifests
from bundler.archive import sums, validate
from bundler.archive.finished import digest_of, log_of
from bundler.archive.media import PACK_JOURNAL, PARTIAL_SUFFIX
from bundler.archive.parity_pack import choose_places, make_parity, with_parity
from bundler.archive.readme import readme
from bundler.archive.recipe import current_writer
from bundler.archive.validate import VOLUME_NAME
from bundler.common.durable import write_atomically
from bundler.common.progress import SILENT
from bundler.common.units import size_text
from bundler.errors import InputError, UsageError
from bundler.manifest import Frames, Manifest, Volume

if TYPE_CHECKING:
    from bundler.archive.media import Media
    from bundler.archive.pack_state import Written
    from bundler.archive.recipe import Recipe, StreamPlan
    from bundler.common.progress import Reporter


def reserve(recipe: Recipe, plan: StreamPlan) -> int:
    """Return about how many bytes lie on every disk besides volumes."""
    companions = sum(map(_size, recipe.companions.values()))
    packages = sum(len(environment.packages) for environment in recipe.head.environments)
    return companions + 100 * len(plan.frames) + 300 * (len(plan.members) + packages) + 2**16


def check_companions(recipe: Recipe) -> None:
    """Check the companions' names.

    :raises InputError: a name with a folder in it, or one of the bundle's own.
    """
    own = {sums.SUMS, sums.SIGNATURE, sums.MANIFEST, sums.README, sums.LOG, PACK_JOURNAL}
    for name in recipe.companions:
        ours = name in own or sums.is_volume(name) or sums.is_parity(name)
        if ours or not validate.name_is_safe(name):
            raise InputError(f"a companion can't be called {name!r}")


def check_volume_size(recipe: Recipe, plan: StreamPlan) -> None:
    """Check that the sums of so many volumes will be read.

    :raises UsageError: the volumes are too small for so large a bundle.
    """
    volumes = plan.size * (100 + recipe.parity) // 100 // recipe.volume_size
    if volumes * sums.LONGEST_LINE > sums.LARGEST_SUMS:
        least = volumes * sums.LONGEST_LINE * recipe.volume_size // sums.LARGEST_SUMS
        raise UsageError(
            f"volumes of {size_text(recipe.volume_size)} are too small for {size_text(plan.size)}",
            hint=f"--volume-size {least // 10**6 + 1}MB or larger",
        )


def write(
    recipe: Recipe,
    plan: StreamPlan,
    key: str,
    media: Media,
    written: Written,
    *,
    threads: int | None = None,
    reporter: Reporter = SILENT,
) -> Manifest:
    """Write all that isn't a volume of data, the sums last: they make it a bundle.

    :return: the bundle's manifest.
    """
    media.drop_beginnings()
    sizes = {name: _size(source) for name, source in recipe.companions.items()}
    manifest = with_parity(_manifest(recipe, plan, media, written), recipe.parity, sizes)
    places = {volume.name: _folder_of(media, volume.name) for volume in manifest.volumes}
    parity = choose_places(manifest, sizes, media)
    homes = [folder for folder in media.folders if folder in {*places.values(), *parity.values()}]
    text = readme(recipe, manifest, [_names_in({**places, **parity}, folder) for folder in homes])
    manifest = with_parity(manifest, recipe.parity, {**sizes, sums.README: len(text)})
    validate.check(manifest, "the bundle just written")
    small = {sums.MANIFEST: manifests.encode(manifest), sums.README: text}
    digests = {volume.name: volume.sha256 for volume in manifest.volumes}
    digests |= {name: digest_of(source) for name, source in {**small, **recipe.companions}.items()}
    for folder in homes:
        for name, source in {**recipe.companions, **small}.items():
            _place(folder / name, source.read_bytes() if isinstance(source, Path) else source)
    sources = {name: folder / name for name, folder in places.items()}
    sources |= {name: homes[0] / name for name in (*sizes, sums.README)}
    digests |= make_parity(manifest, digests, sources, parity, threads=threads, reporter=reporter)
    for folder in homes:
        _drop_stale_signature(folder, sums.render(digests))
        _place(folder / sums.LOG, log_of(recipe, key, homes))
        _place(folder / sums.SUMS, sums.render(digests))
    _drop_unused(media, homes)
    return manifest


def _manifest(recipe: Recipe, plan: StreamPlan, media: Media, written: Written) -> Manifest:
    volumes = tuple(
        Volume(
            name=VOLUME_NAME.format(number + 1),
            size=sum(written.stored[first:end]),
            sha256=written.volumes[number],
            frames=end - first,
        )
        for number, (first, end) in enumerate(written.volume_spans())
    )
    raw = tuple(plan.frames[number + 1] - plan.frames[number] for number in range(len(written.stored)))
    return msgspec.structs.replace(
        recipe.head,
        writer=current_writer(),
        tree=plan.tree(written.files),
        stream_size=plan.size,
        volumes=volumes,
        frames=Frames(raw=raw, stored=tuple(written.stored), blake3=tuple(written.digests)),
    )


def _folder_of(media: Media, name: str) -> Path:
    path = media.find(name)
    assert path is not None  # restore saw it
    return path.parent


def _size(source: Path | bytes) -> int:
    return source.stat().st_size if isinstance(source, Path) else len(source)


def _names_in(places: dict[str, Path], folder: Path) -> list[str]:
    return [name for name, home in places.items() if home == folder]


def _place(path: Path, data: bytes) -> None:
    write_atomically(path, data)
    if path.suffix == ".sh":
        # FAT has no modes: install.sh is called as `sh install.sh`, so nothing is lost there.
        with contextlib.suppress(OSError):
            path.chmod(0o755)


def _drop_stale_signature(folder: Path, listed: bytes) -> None:
    """Remove a signature that is of other sums than those which come now."""
    there = folder / sums.SUMS
    if not there.is_file() or there.read_bytes() != listed:
        (folder / sums.SIGNATURE).unlink(missing_ok=True)


def _drop_unused(media: Media, homes: list[Path]) -> None:
    """Remove folders that no volume came to; the journal's is removed with it."""
    for folder in media.folders:
        if folder not in homes:
            for name in (sums.MANIFEST, sums.README, sums.LOG, sums.SUMS, sums.SIGNATURE):
                (folder / name).unlink(missing_ok=True)
                (folder / (name + PARTIAL_SUFFIX)).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                folder.rmdir()
