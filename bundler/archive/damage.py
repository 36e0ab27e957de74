"""Naming damage: which volumes and files it touches, and what to copy again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bundler.archive.parity_advice import or_repair
from bundler.errors import DamagedError, PartialError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bundler.archive.bundle import Bundle
    from bundler.archive.layout import Frame

_SHOWN = 20


@dataclass(frozen=True)
class Damage:
    """A frame that isn't what the manifest promises."""

    frame: Frame
    reason: str

    def text(self, bundle: Bundle) -> str:
        """Return it as a line: volume, place, reason."""
        frame = self.frame
        name = bundle.manifest.volumes[frame.volume].name
        return f"{name}, bytes {frame.offset} to {frame.offset + frame.stored}: {self.reason}"


def refuse_damage(bundle: Bundle, damages: Sequence[Damage], files: Sequence[int]) -> None:
    """End an unpack that met damage.

    :param files: numbers of the files that aren't in place.
    :raises DamagedError: naming volumes, files, and what to do.
    """
    if not damages:
        return
    volumes = sorted({bundle.manifest.volumes[damage.frame.volume].name for damage in damages})
    touched = {piece.entry for damage in damages for piece in bundle.layout.slices(damage.frame)} & set(files)
    findings = _short([damage.text(bundle) for damage in damages])
    findings += _short([f"not unpacked: {bundle.manifest.tree[number].path}" for number in sorted(touched)])
    raise DamagedError(
        f"{len(damages)} damaged frame(s) in {', '.join(volumes)}; everything else is unpacked",
        where=", ".join(map(str, bundle.folders)),
        findings=findings,
        hint=or_repair(
            f"copy {', '.join(volumes)} again and run the same command: it reads only what is missing",
            bundle.folders,
            parity=bundle.manifest.parity is not None,
        ),
    )


def refuse_waiting(volumes: Sequence[str], files: Sequence[int]) -> None:
    """End a partial unpack.

    :param volumes: those that are needed yet and aren't here.
    :raises PartialError: naming them.
    """
    if volumes:
        raise PartialError(
            f"unpacked what is here; {len(files)} file(s) wait for {len(volumes)} volume(s)",
            findings=_short(list(volumes)),
            hint=f"insert the disk with {volumes[0]} and run the same command with its folder",
        )


def _short(lines: list[str]) -> list[str]:
    return lines if len(lines) <= _SHOWN else [*lines[:_SHOWN], f"and {len(lines) - _SHOWN} more"]
