"""How a model is served by its manifest, in words: when, and with which flags and variables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bundler.launch_names import may_set

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bundler.model import Launch, LaunchVariant

UNLISTED = "not a manifest's to set by itself: only with --allow-launch"
"""Marks what the lists of :mod:`bundler.launch_names` don't hold."""


def launch_lines(launch: Launch, mark: str = UNLISTED) -> Iterator[tuple[str, list[str]]]:
    """Yield when, and with which flags and variables, a model is served; nothing of it is left out.

    :param mark: what is put behind each that isn't on the lists.
    """
    yield "always", _words(launch, mark)
    for variant in launch.variants:
        yield _condition(variant), _words(variant, mark)


def _condition(variant: LaunchVariant) -> str:
    words = []
    if variant.environments:
        words.append(f"environment {' or '.join(variant.environments)}")
    if variant.gpu_families:
        words.append(f"on {' or '.join(variant.gpu_families)} GPUs")
    if variant.sglang:
        words.append(f"SGLang {variant.sglang}")
    return ", ".join(words) or "always"


def _words(part: Launch | LaunchVariant, mark: str) -> list[str]:
    shown = []
    for name, value in part.flags.items():
        text = f"--{name}" if value is True else f"--{name} {value}"
        shown.append((name, value, f"(without --{name})" if value is False else text))
    shown += [(name, value, f"{name}={value}") for name, value in part.env.items()]
    return [text if may_set(name, value) else f"{text} ({mark})" for name, value, text in shown]
