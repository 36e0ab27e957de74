"""What the server is doing, read from its log."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bundler.common.units import duration_text

if TYPE_CHECKING:
    from pathlib import Path

KEPT_LINES = 400
"""Lines kept for the explanation of a failure."""
READ_SIZE = 1 << 20

NEVER = re.compile(r"(?!)")
"""For a stage that no line alone begins."""
DRAFT_GRAPHS = re.compile(r"Capture draft .*graph begin")
WEIGHTS_BEGIN = re.compile(r"Load weight begin")
RANK = re.compile(r"\b(?:DP\d+ )?TP\d+\b[^\]]*\]")
"""The rank that wrote a line of the log: ``[2026-11-24 02:00:00 TP0]``."""

STAGES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("starting the ranks", re.compile(r"Init torch distributed begin")),
    ("loading weights", re.compile(r"Load weight begin")),
    ("preparing memory", re.compile(r"Load weight end")),
    ("capturing graphs", re.compile(r"Capture (?:[\w-]+ )*(?:cuda|CUDA) graph (?:begin|bs|num tokens)")),
    ("loading the draft model", NEVER),
    ("capturing the draft's graphs", DRAFT_GRAPHS),
    ("starting HTTP", re.compile(r"Capture (?:[\w-]+ )*(?:cuda|CUDA) graph end|max_total_num_tokens=")),
    ("warming up", re.compile(r"Application startup complete|Uvicorn running on")),
    ("ready", re.compile(r"The server is fired up and ready to roll!")),
)
"""What begins with a line of the log, in the order of a start."""
FIRST_STAGE = "importing"
DRAFT = "loading the draft model"

SHARDS = re.compile(r"(?:checkpoint shards|loading shards):.*?\| *(\d+)/(\d+) ")
GRAPHS = re.compile(r"Capturing (?:batches|num tokens).*?\| *(\d+)/(\d+) ")


KEY = re.compile(r"""(api_key=)(?:'[^']*'|"[^"]*")""")


def without_key(line: str) -> str:
    """Return a line of the log without the clients' key: SGLang logs its flags, that one too."""
    return KEY.sub(r"\1'***'", line)


class LogTail:
    """Follows a log file from its beginning; a progress bar's carriage returns end lines too."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._place = 0
        self._rest = ""

    def read(self) -> list[str]:
        """Return the lines that were completed since the last call."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._place)
                data = file.read(READ_SIZE)
        except FileNotFoundError:
            return []
        self._place += len(data)
        text = self._rest + data.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")
        *lines, self._rest = text.split("\n")
        return [without_key(line) for line in lines]

    def drain(self) -> list[str]:
        """Return all that is left, the last incomplete line too."""
        lines: list[str] = []
        while more := self.read():
            lines += more
        if self._rest:
            lines.append(without_key(self._rest))
            self._rest = ""
        return lines


@dataclass(slots=True)
class Progress:
    """Where a start has got to, and when each stage began."""

    started: float
    """The clock's reading when the process was started."""
    stage: str = FIRST_STAGE
    detail: str = ""
    began: dict[str, float] = field(default_factory=dict)
    """The clock's reading at each stage's first line."""
    _loaded: set[str] = field(default_factory=set)
    """The ranks that have begun to load weights."""
    last: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))

    def __post_init__(self) -> None:
        self.began[FIRST_STAGE] = self.started

    def see(self, line: str, now: float) -> None:
        """Take in one line of the log."""
        if line.strip():
            self.last.append(line)
        for pattern, noun in ((SHARDS, "shard"), (GRAPHS, "graph")):
            if match := pattern.search(line):
                self.detail = f"{noun} {match[1]} of {match[2]}"
        names = [name for name, _ in STAGES]
        if self.stage not in (FIRST_STAGE, *names):
            return
        self._see_draft(line, now)
        reached = -1 if self.stage == FIRST_STAGE else names.index(self.stage)
        for place, (name, pattern) in enumerate(STAGES):
            # Each rank logs each line: a stage begins with the first that reaches it and never goes back.
            if place > reached and pattern.search(line):
                self.stage, self.detail = name, ""
                self.began[name] = now
                reached = place

    def _see_draft(self, line: str, now: float) -> None:
        """Go back where a rank loads weights for the second time: speculation's draft model comes last."""
        if WEIGHTS_BEGIN.search(line):
            found = RANK.search(line)
            rank = found[0].rstrip("]") if found else ""
            if rank in self._loaded and DRAFT not in self.began:
                # The graphs that ended before weren't the last: HTTP isn't next.
                self.began.pop("starting HTTP", None)
                self.enter(DRAFT, now)
            self._loaded.add(rank)
        elif self.stage == "starting HTTP" and DRAFT in self.began and DRAFT_GRAPHS.search(line):
            self.began.pop("starting HTTP")
            began = self.began.get("capturing the draft's graphs", now)
            self.enter("capturing the draft's graphs", began)

    def enter(self, stage: str, now: float) -> None:
        """Begin a stage that the log doesn't tell of."""
        self.stage, self.detail = stage, ""
        self.began.pop("ready", None)
        self.began[stage] = now

    def line(self, now: float) -> str:
        """Return the status line: ``loading weights: shard 3 of 93, 42 s``."""
        detail = f": {self.detail}" if self.detail else ""
        return f"{self.stage}{detail}, {duration_text(now - self.started)}"

    def seconds(self, ready: float) -> list[tuple[str, float]]:
        """Return how long each stage took, in their order, given when the server was ready."""
        stages = [(name, began) for name, began in self.began.items() if name != "ready"]
        ends = [began for _, began in stages[1:]] + [ready]
        return [(name, end - began) for (name, began), end in zip(stages, ends, strict=True)]
