"""Whatever bytes a bundle holds: a message or a success, and what passes is safe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.hostile.__main__ import WORK, by_hypothesis
from tests.hostile.mutations import altered, altered_json
from tests.hostile.targets import TARGETS, corpus, run

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = 150
"""Of each target in the suite; ``make fuzz`` takes minutes."""
QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_kept(target: str) -> None:
    """What fuzzing found once is read for ever."""
    found = corpus(target)
    assert found
    for data in found.values():
        run(target, data)


@pytest.mark.parametrize("target", TARGETS)
def test_altered_inputs(target: str) -> None:
    known = [*corpus(target).values()]

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=QUIET, database=None)
    @given(data=st.one_of(altered(known), st.binary(max_size=600)))
    def tried(data: bytes) -> None:
        run(target, data)

    tried()


@settings(max_examples=2 * EXAMPLES, deadline=None, suppress_health_check=QUIET, database=None)
@given(data=altered_json([*corpus("manifest").values()]))
def test_altered_manifests(data: bytes) -> None:
    """JSON that is JSON, with a value where another belongs."""
    run("manifest", data)


def test_what_is_found_is_made_small_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a defect that is put in: one byte is enough to meet it, and so one of that kind remains."""

    def defect(data: bytes) -> None:
        if b"\xff" in data:
            raise IndexError

    monkeypatch.setitem(TARGETS, "sums", defect)
    monkeypatch.chdir(tmp_path)
    assert by_hypothesis("sums", 60) == 1
    assert (tmp_path / WORK / "found/sums/least").read_bytes().count(b"\xff") == 1
