"""Sizes as people read them."""

from __future__ import annotations


def size_text(count: float) -> str:
    """Return a size as people read it: ``1.4 GB``, in powers of ten, as disks and GPUs are sold."""
    for unit in ("B", "kB", "MB", "GB"):
        # What rounds to 1000 of a unit is 1 of the next.
        if abs(count) < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" or abs(count) >= 99.95 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} TB"


def duration_text(seconds: float) -> str:
    """Return a duration as people read it: ``42 s``, ``3 min 20 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
