"""SGLang's flags as a mapping, merged so that each is given once and the user's win."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bundler.model import FlagValue

SAME = {
    "tp": "tp-size",
    "tensor-parallel-size": "tp-size",
    "model": "model-path",
    "dist-init-address": "dist-init-addr",
    "nccl-init-addr": "dist-init-addr",
    "data-parallel-size": "dp-size",
    "dp": "dp-size",
    "pipeline-parallel-size": "pp-size",
    "pp": "pp-size",
    "expert-parallel-size": "ep-size",
    "ep": "ep-size",
}
"""Other spellings of SGLang's flags."""
CONTRARY = {
    "enable-flashinfer-allreduce-fusion": "enforce-disable-flashinfer-allreduce-fusion",
    "flashinfer-allreduce-fusion-backend": "enforce-disable-flashinfer-allreduce-fusion",
}
"""Flags of the user's that take away one of ours, which would forbid what they ask for."""
OF_PATHS = ("path", "paths", "file", "folder", "dir", "template", "config", "certs")
"""End the names of SGLang's flags that name a file or folder, or something else by a word."""


@dataclass(frozen=True, slots=True)
class UserFlag:
    """A flag as the user typed it."""

    name: str
    """Canonical, without dashes; empty for words before the first flag."""
    words: tuple[str, ...]
    """As typed, the flag's own word first."""

    @property
    def value(self) -> str | None:
        """The flag's value, where it has one."""
        if "=" in self.words[0]:
            return self.words[0].partition("=")[2]
        return self.words[1] if len(self.words) > 1 else None


def parse(words: Sequence[str]) -> tuple[UserFlag, ...]:
    """Cut what stands after ``--`` into flags, each with its values."""
    groups: list[list[str]] = []
    for word in words:
        if word.startswith("--") or not groups:
            groups.append([word])
        else:
            groups[-1].append(word)
    return tuple(UserFlag(canonical(group[0]), tuple(group)) for group in groups)


def anchored(users: Sequence[UserFlag], folder: Path) -> tuple[UserFlag, ...]:
    """Make paths absolute that lead from a folder to something there: the server runs in another."""

    def found(word: str) -> str:
        head, sign, path = word.rpartition("=")
        return f"{head}{sign}{folder / path}" if path and (folder / path).exists() else word

    return tuple(
        replace(flag, words=tuple(word if word == f"--{flag.name}" else found(word) for word in flag.words))
        if flag.name.endswith(OF_PATHS)
        else flag
        for flag in users
    )


def canonical(word: str) -> str:
    """Return a flag's one name: without dashes, value and abbreviation."""
    if not word.startswith("--"):
        return ""
    name = word[2:].partition("=")[0].replace("_", "-")
    return SAME.get(name, name)


def merge(ours: Mapping[str, FlagValue], users: Sequence[UserFlag]) -> list[str]:
    """Return the words of a command line: ours without those that the user gave, then the user's as typed."""
    given = {flag.name for flag in users} | {CONTRARY.get(flag.name, flag.name) for flag in users}
    words: list[str] = []
    for name, value in ours.items():
        if canonical(f"--{name}") not in given:
            words += _words(name, value)
    for flag in users:
        words += flag.words
    return words


def value_of(name: str, ours: Mapping[str, FlagValue], users: Sequence[UserFlag]) -> str | None:
    """Return a flag's value after the merge: the user's last one, else ours."""
    for flag in reversed(users):
        if flag.name == name and flag.value is not None:
            return flag.value
    value = ours.get(name)
    return None if value is None or isinstance(value, bool) else str(value)


def _words(name: str, value: FlagValue) -> list[str]:
    if value is False:
        return []
    return [f"--{name}"] if value is True else [f"--{name}", str(value)]
