"""Sizes as people read them."""

import pytest

from bundler.common.units import size_text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (99_960, "100 kB"),
        (999_949, "1.0 MB"),
        (16_700_000, "16.7 MB"),
        (716_700_000_000, "717 GB"),
        (1_433_000_000_000, "1.43 TB"),
        (-150e9, "-150 GB"),
    ],
)
def test_size_text(count: float, text: str) -> None:
    """Powers of ten, three figures at most, never 1000 of a unit."""
    assert size_text(count) == text
