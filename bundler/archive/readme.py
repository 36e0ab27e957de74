"""``README.txt``: what a bundle is, and how to use it with bundler or with stock tools alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bundler.archive.sums import is_volume

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bundler.archive.recipe import Recipe
    from bundler.manifest import Manifest


def readme(recipe: Recipe, manifest: Manifest, disks: Sequence[Sequence[str]]) -> bytes:
    """Return the text. It is the same on each disk, so that one sums file holds for all.

    :param disks: the names of the volumes on each disk, in order.
    """
    parts = [_title(manifest), _contents(manifest), recipe.notes, _disks(disks)]
    parts += [_install(recipe, disks), _mend(manifest, disks), _by_hand(disks)]
    blocks = ["\n".join(lines) for lines in map(list, parts) if lines]
    return ("\n\n".join(blocks) + "\n").encode()


def _title(manifest: Manifest) -> Iterator[str]:
    title = f"{manifest.name}: an offline bundle"
    yield title
    yield "=" * len(title)


def _contents(manifest: Manifest) -> Iterator[str]:
    yield "What it holds"
    for environment in manifest.environments:
        versions = [
            f"{word} {version}"
            for word, version in (
                ("CUDA", environment.cuda),
                ("torch", environment.torch),
                ("SGLang", environment.sglang),
            )
            if version
        ]
        versions.append(f"{len(environment.packages)} packages")
        yield f"  environment {environment.name}: {', '.join(versions)}"
    for model in manifest.models:
        revision = f", revision {model.revision}" if model.revision else ""
        yield f"  model {model.spec.name}: {model.origin}{revision}"
    size = sum(entry.size for entry in manifest.tree)
    files = sum(entry.kind == "file" for entry in manifest.tree)
    stored = sum(volume.size for volume in manifest.volumes)
    yield f"  {files} files, {size} bytes unpacked; {stored} bytes of volumes"
    yield f"  rehearsal: {manifest.rehearsal.status}"
    if manifest.parity is not None:
        parity = manifest.parity
        yield f"  parity: of each {parity.data} files, {parity.parity} may be lost or damaged"


def _disks(disks: Sequence[Sequence[str]]) -> Iterator[str]:
    if len(disks) < 2:
        return
    yield f"It lies on {len(disks)} disks (which one this is, its volumes tell)"
    for number, names in enumerate(disks, 1):
        span = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
        yield f"  disk {number}: {span}"


def _install(recipe: Recipe, disks: Sequence[Sequence[str]]) -> Iterator[str]:
    folders = "." if len(disks) < 2 else " ".join(f"DISK{number}" for number in range(1, len(disks) + 1))
    yield "To install, in this folder"
    if "install.sh" in recipe.companions:
        yield "  sha256sum --ignore-missing -c SHA256SUMS"
        yield "  sh install.sh /opt/NAME"
        yield "or, where bundler is installed already"
    yield f"  bundler unpack {folders} /opt/NAME"
    if len(disks) > 1:
        yield "with one drive and the disks in turn, each time with the next disk"
        yield "  bundler unpack --partial . /opt/NAME"


def _mend(manifest: Manifest, disks: Sequence[Sequence[str]]) -> Iterator[str]:
    if manifest.parity is None:
        return
    folders = "." if len(disks) < 2 else " ".join(f"DISK{number}" for number in range(1, len(disks) + 1))
    yield "Where a file is damaged or missing, mend it by the parity volumes"
    yield f"  bundler repair {folders}"


def _by_hand(disks: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "Without bundler, with sha256sum, zstd and tar alone"
    yield "  mkdir -p /opt/NAME"
    if len(disks) < 2:
        yield "  sha256sum -c SHA256SUMS"
        yield "  cat data-*.tar.zst | zstd -d | tar x -C /opt/NAME"
        return
    for number in range(1, len(disks) + 1):
        yield f"  (cd DISK{number} && sha256sum --ignore-missing -c SHA256SUMS)"
    # A disk may hold parity volumes alone.
    filled = [number for number, names in enumerate(disks, 1) if any(map(is_volume, names))]
    volumes = " ".join(f"DISK{number}/data-*.tar.zst" for number in filled)
    yield f"  cat {volumes} | zstd -d | tar x -C /opt/NAME"
    yield "where DISK1, DISK2 … are the disks' folders; with one drive, each disk in turn, into one pipe:"
    yield "  for n in " + " ".join(map(str, filled)) + "; do"
    yield '    read -p "insert disk $n, then press Enter" go </dev/tty; cat DISK/data-*.tar.zst'
    yield "  done | zstd -d | tar x -C /opt/NAME"
