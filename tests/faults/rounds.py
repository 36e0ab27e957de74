"""Rounds: a command is disturbed once or several times, goes on, and must end as an undisturbed one."""

from __future__ import annotations

import pickle
import random
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.faults.disk import FITTING, Fault
from tests.faults.nursery import Job, Nursery
from tests.faults.power_cut import power_cut

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.disk import Crash
    from tests.faults.nursery import Ended
    from tests.faults.subjects import Facts, Subject

KINDS = {"kill": 6, "kill after": 4, "clock": 2, "term": 2, "ENOSPC": 3, "EIO": 3, "short": 1, "EINTR": 1}
"""How often each comes, in proportion."""
KILLED, INTERRUPTED = -9, 130
STABLE = {4, 5, 8, 9, 10}
"""Exit codes that tell what to do."""
NO_MESSAGE = re.compile(r"Traceback|unexpected|a defect of bundler")


@dataclass
class Tally:
    """What the rounds were, and what they found."""

    rounds: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    """Names and contents that power cuts took."""
    found: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Count another's rounds in."""
        self.rounds += other.rounds
        self.kinds += other.kinds
        self.lost += other.lost
        self.found += other.found

    def text(self, seed: int) -> str:
        """Return the line for the suite's summary."""
        kills = sum(self.kinds[name] for name in ("kill", "kill after", "clock", "term"))
        faults = sum(self.kinds.values()) - kills
        return (
            f"faults: {self.rounds} rounds ({kills} kills, {faults} faults, {self.lost} unsynced writes "
            f"dropped), {len(self.found)} lost, seed {seed}"
        )


class Bench:
    """One subject, its undisturbed run, and a process that runs it."""

    def __init__(self, subject: Subject, nursery: Nursery, notes: Path) -> None:
        """Run it once undisturbed."""
        self.subject, self._nursery, self._notes = subject, nursery, notes
        self._boot = 0
        notes.mkdir(parents=True, exist_ok=True)
        subject.begin()
        ended = self._run(Fault())
        assert ended.code == 0, ended.said
        self.whole: Facts = subject.result()
        self.kinds, self.seconds = ended.kinds, ended.seconds
        assert self.whole and self.kinds

    def round(self, number: int, seed: int) -> Tally:
        """Disturb, go on, and compare; what is wrong is in the tally."""
        chance, tally = random.Random(f"{seed} {self.subject.name} {number}"), Tally(1)
        self.subject.begin()
        story: list[str] = []
        try:
            for _ in range(chance.choice([1, 1, 1, 2, 3])):
                fault = self._draw(chance)
                tally.kinds[fault.kind] += 1
                story.append(f"{fault.kind} at {fault.at}{' and later' * fault.lasting}")
                self._disturb(fault, chance, tally, story)
            self._go_on(tally)
        except AssertionError as problem:
            tally.found.append(f"{self.subject.name} round {number} ({', '.join(story)}): {problem}")
        return tally

    def _draw(self, chance: random.Random) -> Fault:
        kind = chance.choices([*KINDS], [*KINDS.values()])[0]
        if kind == "clock":
            return Fault(kind, seconds=chance.uniform(0.2, 1.0) * self.seconds)
        fitting = FITTING.get(kind)
        places = [at for at, name in enumerate(self.kinds, 1) if fitting is None or name in fitting]
        lasting = kind in ("ENOSPC", "EIO", "short") and chance.random() < 0.5
        return Fault(kind, chance.choice(places or [1]), lasting)

    def _disturb(self, fault: Fault, chance: random.Random, tally: Tally, story: list[str]) -> None:
        ended = self._run(fault)
        self._check_end(fault, ended)
        # A power cut may come after an error, too; a process that was killed from outside left no state.
        if (crash := self._crash()) is not None:
            cut = power_cut(self.subject.work, crash, chance)
            self._boot += 1
            tally.lost += cut
            if cut:
                story.append(f"power cut, {cut} dropped")
        there = self.subject.result()
        if ended.code == 0 or self.subject.finished():
            self._compare(there, "it says that it is whole")
        elif self.subject.checked_midway:
            wrong = {name for name, facts in there.items() if not self._is_whole(name, facts)}
            assert not wrong, f"with their own names, and other content: {sorted(wrong)}"

    def _is_whole(self, name: str, facts: tuple[str, ...]) -> bool:
        return self.whole.get(name, facts)[-1] == facts[-1]

    def _check_end(self, fault: Fault, ended: Ended) -> None:
        said = f"exit {ended.code}\n{ended.said}"
        assert not NO_MESSAGE.search(ended.said), said
        if fault.kind in ("kill", "kill after", "clock"):
            assert ended.code in (KILLED, 0), said
        elif fault.kind == "term":
            assert ended.code in (INTERRUPTED, 0), said
        elif fault.kind in ("short", "EINTR"):
            assert ended.code == 0, said
        elif ended.code:
            assert ended.code in STABLE, said
            assert len(re.findall(r"^error: ", ended.said, re.MULTILINE)) == 1, said
            assert "fix:" in ended.said, said
            assert fault.kind != "EIO" or "dying" in ended.said, said

    def _go_on(self, tally: Tally) -> None:
        ended = self._run(Fault())
        assert ended.code == 0, f"it doesn't go on: exit {ended.code}\n{ended.said}"
        self._compare(self.subject.result(), "it went on")
        crash = self._crash()
        assert crash is not None
        power_cut(self.subject.work, crash, random.Random(0), worst=True)
        self._compare(self.subject.result(), "it went on, and power was cut after its end")

    def _compare(self, there: Facts, when: str) -> None:
        missing, more = {*self.whole} - {*there}, {*there} - {*self.whole}
        other = {name for name in {*there} & {*self.whole} if there[name] != self.whole[name]}
        assert not missing | more | other, (
            f"{when}: missing {sorted(missing)[:5]}, more {sorted(more)[:5]}, different {sorted(other)[:5]}"
        )

    def _run(self, fault: Fault) -> Ended:
        one = self.subject
        places = (str(one.work), str(one.source))
        return self._nursery.run(Job(one.words, *places, fault, self._boot, str(self._notes)))

    def _crash(self) -> Crash | None:
        path = self._notes / "crash"
        if not path.exists() or not path.stat().st_size:
            return None
        crash: Crash = pickle.loads(path.read_bytes())
        return crash
