"""``python -m tests.demo.record FILE.svg``: run the demo, and draw what it prints as a picture that moves.

A browser plays it without a script; the pauses between lines are those of the run, the long ones cut short.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from html import escape
from pathlib import Path

COLUMNS, ROWS = 104, 28
LETTER, LINE, EDGE = 7.25, 17, 12
"""Pixels of a letter's width, of a line's height, and around all."""
LONGEST_PAUSE, LAST = 0.9, 12.0
"""Seconds between two lines, at most, and that the last screen stays."""
HEADING = "== "


@dataclass(frozen=True)
class Line:
    """A row of the screen."""

    at: float
    """Seconds from the beginning."""
    text: str


def recorded(place: Path) -> list[Line]:
    """Run the demo in a folder, and return what it prints.

    :raises CalledProcessError: it failed.
    """
    command = [sys.executable, "-m", "tests.demo", "--dir", "demo"]
    project = Path(__file__).resolve().parents[2]
    variables = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(project), "COLUMNS": str(COLUMNS)}
    process = subprocess.Popen(
        command,
        cwd=place,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    lines, at, last = [Line(0.0, "$ make demo")], 0.5, time.monotonic()
    for text in process.stdout:
        now = time.monotonic()
        at, last = at + min(now - last, LONGEST_PAUSE), now
        shown = text.rstrip("\n").replace(str(Path(sys.executable).parent / "bundler"), "bundler")
        shown = shown.replace(str(place), "~").replace(f"HOME={Path.home()}", "HOME=~")
        lines += [Line(at, shown[start : start + COLUMNS]) for start in range(0, max(len(shown), 1), COLUMNS)]
    if process.wait():
        raise subprocess.CalledProcessError(process.returncode, command)
    return lines


def drawn(lines: list[Line]) -> str:
    """Return the picture: each line comes at its time, and the paper moves up below the last row."""
    end = lines[-1].at + LAST
    width, height = round(COLUMNS * LETTER + 2 * EDGE), ROWS * LINE + 2 * EDGE
    moves = [(one.at, (number + 1 - ROWS) * LINE) for number, one in enumerate(lines) if number >= ROWS]
    times = ";".join(f"{at / end:.5f}" for at, _ in [(0.0, 0), *moves])
    values = ";".join(f"0 {-up}" for _, up in [(0.0, 0), *moves])
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
    font = 'font-family="ui-monospace,Menlo,Consolas,monospace" font-size="12" fill="#e6edf3"'
    rows = "\n".join(_row(number, one, end) for number, one in enumerate(lines) if one.text)
    return (
        f'{head} viewBox="0 0 {width} {height}" {font}>\n'
        '<rect width="100%" height="100%" rx="6" fill="#0d1117"/>\n'
        f'<svg x="{EDGE}" y="{EDGE}" width="{width - 2 * EDGE}" height="{ROWS * LINE}">\n'
        f'<g xml:space="preserve"><animateTransform attributeName="transform" type="translate" '
        f'calcMode="discrete" dur="{end:.2f}s" repeatCount="indefinite" keyTimes="{times}" '
        f'values="{values}"/>\n{rows}\n</g>\n</svg>\n</svg>\n'
    )


def _row(number: int, line: Line, end: float) -> str:
    colour = ' fill="#79c0ff"' if line.text.startswith("$ ") else ""
    colour = ' fill="#ffa657" font-weight="bold"' if line.text.startswith(HEADING) else colour
    comes = (
        f'<animate attributeName="opacity" calcMode="discrete" dur="{end:.2f}s" repeatCount="indefinite" '
        f'keyTimes="0;{line.at / end:.5f}" values="0;1"/>'
    )
    return f'<text y="{number * LINE + 12}"{colour}>{escape(line.text)}{comes}</text>'


def main() -> None:
    """Record, and write the picture."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.demo.record FILE.svg")
    target = Path(sys.argv[1]).absolute()
    with tempfile.TemporaryDirectory() as place:
        lines = recorded(Path(place).resolve())
    target.write_text(drawn(lines), encoding="utf-8")
    print(f"{target}: {len(lines)} lines, {lines[-1].at:.0f} s")


if __name__ == "__main__":
    main()
