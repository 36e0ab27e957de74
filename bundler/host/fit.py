"""Which GPUs a model fits: arithmetic on its facts alone, the same for plan, inspect, doctor and serve.

Sizes are bytes; a GPU's memory is taken as its maker names it (80 GB = 80·10⁹ bytes), which is a little less
than it has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bundler.model import Fit

if TYPE_CHECKING:
    from bundler.model import ModelFacts, ModelSpec

GB = 1_000_000_000
DEFAULT_MEM_FRACTION = 0.88
"""What SGLang takes of a GPU for weights and KV cache where the manifest says nothing."""
USEFUL_TOKENS = 16_384
"""KV cache that must be left beside the weights for a fit to be worth the name."""
CANDIDATES = tuple(
    Fit(count=count, memory_gb=memory) for memory in (24, 48, 80, 96, 141, 180) for count in (1, 2, 4, 8, 16)
)
"""Sets of like GPUs as they are sold: cards of 24 and 48 GB, A100/H100, H20, H200, B200."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one GPU of a tensor-parallel group holds."""

    weights: int
    """Bytes of weights."""
    pool: int
    """Bytes that the memory fraction leaves for weights and KV cache together."""
    kv_per_token: int | None
    """Bytes of KV cache a token takes here; ``None`` where the model's facts don't say."""

    @property
    def room(self) -> int:
        """Bytes left for the KV cache; negative where the weights alone don't fit."""
        return self.pool - self.weights

    @property
    def tokens(self) -> int | None:
        """Tokens that the KV cache holds, all requests together."""
        return None if not self.kv_per_token else max(self.room, 0) // self.kv_per_token

    @property
    def fits(self) -> bool:
        """Whether the weights fit and a useful KV cache with them."""
        return self.room > 0 and (self.tokens is None or self.tokens >= USEFUL_TOKENS)


def mem_fraction(spec: ModelSpec | None) -> float:
    """Return the ``mem-fraction-static`` that a model is launched with."""
    value = spec.launch.flags.get("mem-fraction-static") if spec is not None else None
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= 1:
        return float(value)
    return DEFAULT_MEM_FRACTION


def drafts(spec: ModelSpec | None) -> bool:
    """Return whether a model is launched with speculative decoding, which loads its draft layers too."""
    return spec is not None and "speculative-algorithm" in spec.launch.flags


def share(
    facts: ModelFacts, tp: int, gpu_bytes: float, fraction: float, *, speculative: bool = False
) -> Share:
    """Return what each of ``tp`` GPUs of ``gpu_bytes`` holds of a model.

    KV heads are split as far as there are any; with more GPUs than KV heads each GPU holds one.

    :param speculative: count the weights that only speculative decoding loads; see :func:`drafts`.
    """
    weights = -(-_loaded(facts, speculative) // tp)
    per_token = facts.kv_bytes_per_token
    if per_token is not None:
        per_token = -(-per_token // min(tp, facts.kv_heads or 1))
    return Share(weights, int(gpu_bytes * fraction), per_token)


def _loaded(facts: ModelFacts, speculative: bool) -> int:
    return facts.weight_bytes - (0 if speculative else facts.draft_weight_bytes)


def heads_divide(facts: ModelFacts, tp: int) -> bool:
    """Return whether tensor parallelism over ``tp`` GPUs splits the attention heads evenly."""
    return not facts.attention_heads or facts.attention_heads % tp == 0


def fits(facts: ModelFacts, fit: Fit, fraction: float = DEFAULT_MEM_FRACTION) -> bool:
    """Return whether a model fits a set of like GPUs, all of them in one tensor-parallel group."""
    if not facts.weight_bytes:
        return False
    one = share(facts, fit.count, fit.memory_gb * GB, fraction)
    return one.fits and heads_divide(facts, fit.count)


def smallest_fits(facts: ModelFacts, fraction: float = DEFAULT_MEM_FRACTION) -> tuple[Fit, ...]:
    """Return the sets that do, fewer GPUs first; none that is at least another in GPUs and in memory."""
    found: list[Fit] = []
    for fit in sorted(CANDIDATES, key=lambda fit: (fit.count, fit.memory_gb)):
        beaten = any(other.memory_gb <= fit.memory_gb for other in found)
        if not beaten and fits(facts, fit, fraction):
            found.append(fit)
    return tuple(found)


def enough(spec: ModelSpec, facts: ModelFacts) -> tuple[Fit, ...]:
    """Return the sets of GPUs to name: the publisher's where the manifest has them, else the derived ones."""
    return spec.requires.gpus or smallest_fits(facts, mem_fraction(spec))


def fit_text(fit: Fit) -> str:
    """Return ``8 × 141 GB``."""
    return f"{fit.count} × {fit.memory_gb} GB"


def needs_text(spec: ModelSpec, facts: ModelFacts) -> list[str]:
    """Return what the target must have, the most important line first, for plan, inspect and README.txt."""
    sets = enough(spec, facts)
    kind = _kind(facts)
    lines = []
    if spec.requires.advice:
        lines.append(spec.requires.advice)
    if sets:
        lines.append(f"GPUs: {' or '.join(fit_text(fit) for fit in sets)}{kind}")
    if facts.weight_bytes:
        lines.append(_weights_line(spec, facts, sets))
    if facts.kv_bytes_per_token:
        lines.append(_kv_line(spec, facts, sets))
    if spec.requires.min_compute_capability:
        lines.append(f"compute capability: {spec.requires.min_compute_capability} or higher")
    if spec.requires.host_memory_gb:
        lines.append(f"host memory: {spec.requires.host_memory_gb} GB")
    return lines


def _kind(facts: ModelFacts) -> str:
    words = [facts.dtype] if facts.dtype else []
    if facts.quantization:
        words.append(facts.quantization)
    return f" ({', '.join(words)})" if words else ""


def _weights_line(spec: ModelSpec, facts: ModelFacts, sets: tuple[Fit, ...]) -> str:
    line = f"weights: {_size(facts.weight_bytes)}"
    if facts.parameters:
        line += f", {count_text(facts.parameters)} elements"
    counts = sorted({fit.count for fit in sets})
    loaded = _loaded(facts, drafts(spec))
    each = ", ".join(f"{_size(loaded / count)} on each of {count}" for count in counts if count > 1)
    return f"{line}; {each}" if each else line


def count_text(count: int) -> str:
    """Return a number of parameters as people say it: ``358.3 billion``, ``8.3 million``."""
    return f"{count / 1e9:.1f} billion" if count >= 1e9 else f"{count / 1e6:.1f} million"


def _size(count: float) -> str:
    return f"{count / GB:.1f} GB" if count >= GB else f"{count / 1e6:.1f} MB"


def _kv_line(spec: ModelSpec, facts: ModelFacts, sets: tuple[Fit, ...]) -> str:
    line = f"KV cache: {facts.kv_bytes_per_token or 0:,} bytes a token on all GPUs together"
    fraction = mem_fraction(spec)
    room = [
        f"about {one.tokens:,} tokens on {fit_text(fit)}"
        for fit in sets[:2]
        if (one := share(facts, fit.count, fit.memory_gb * GB, fraction, speculative=drafts(spec))).tokens
    ]
    return f"{line}; {', '.join(room)}" if room else line
