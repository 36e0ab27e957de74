"""What an environment, a model and a launch want of a host."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from bundler.host.fit import DEFAULT_MEM_FRACTION, heads_divide, mem_fraction
from bundler.model import ModelFacts, Requirements
from bundler.stack import Stack

if TYPE_CHECKING:
    from bundler.manifest import Environment, Model

NUMBER = re.compile(r"[0-9]{1,9}")
"""A part of a version; what else may be a digit somewhere, or is too long for a number, is none."""


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What is compared with a host's facts; ``None`` means nothing is known, and nothing is checked."""

    environment: str | None = None
    stack: Stack = Stack()
    model: str | None = None
    facts: ModelFacts = ModelFacts()
    requires: Requirements = Requirements()
    tp_size: int | None = None
    """GPUs over all nodes; ``None``: chosen from the GPUs that are visible."""
    nnodes: int = 1
    mem_fraction: float = DEFAULT_MEM_FRACTION
    port: int | None = None
    dist_init_addr: str | None = None

    def tp_on(self, visible: int) -> int:
        """Return the tp-size for a host that has so many GPUs visible."""
        return self.tp_size or choose_tp_size(visible, self.facts, self.nnodes)


def needs_of(
    environment: Environment | None,
    model: Model | None,
    *,
    tp_size: int | None = None,
    port: int | None = None,
) -> Needs:
    """Return what a bundle's environment and model want, for the check before anything is unpacked."""
    return Needs(
        environment=environment.name if environment else None,
        stack=environment.stack if environment else Stack(),
        model=model.spec.name if model else None,
        facts=model.facts if model else ModelFacts(),
        requires=model.spec.requires if model else Requirements(),
        tp_size=tp_size,
        mem_fraction=mem_fraction(model.spec if model else None),
        port=port,
    )


def divides(facts: ModelFacts, tp_size: int) -> bool:
    """Say whether the model's attention can be split over so many GPUs.

    Heads are dealt out evenly; KV heads too, or each is copied to the same number of GPUs.
    """
    kv = facts.kv_heads
    if not heads_divide(facts, tp_size):
        return False
    return not kv or kv % tp_size == 0 or tp_size % kv == 0


def choose_tp_size(visible: int, facts: ModelFacts, nnodes: int = 1) -> int:
    """Return the largest tp-size that each node's visible GPUs and the model's heads allow; at least 1."""
    sizes = (count * nnodes for count in range(visible, 0, -1))
    return next((size for size in sizes if divides(facts, size)), nnodes)


def version_in(version: str | None, specifier: str | None) -> bool:
    """Say whether a version lies in a specifier (``>=0.5.7,<0.6``); no specifier holds every version.

    An unknown version lies only in no specifier. A local part (``+cu128``) is ignored.
    """
    if not specifier:
        return True
    if not version:
        return False
    try:
        return SpecifierSet(specifier).contains(Version(version.partition("+")[0]), prereleases=True)
    except ValueError:
        # No specifier, no version, or a number of thousands of digits in either.
        return False


def numbers(version: str | None) -> tuple[int, ...]:
    """Return a dotted version's leading numbers: ``570.124.06`` gives ``(570, 124, 6)``."""
    parts: list[int] = []
    for word in (version or "").split("."):
        if not NUMBER.fullmatch(word):
            break
        parts.append(int(word))
    return tuple(parts)
