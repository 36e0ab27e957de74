"""README's chapter of what comes later: its commands run in their order, and print what it shows."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import PROJECT, run_bundler

if TYPE_CHECKING:
    from pathlib import Path

NATIVE = ("--installer", "native")
ELIDED = "…"
MASKS = (
    (r"[0-9a-f]{64}", "DIGEST"),
    (r"\d{4}-\d\d-\d\dT[\d:+]+", "TIME"),
    (r" *\d[\d.]* [kMG]?B\b", " SIZE"),
    (r"\b\d+ s\b(, SIZE/s)?", "SECONDS"),
    (r", SIZE/s", ""),
)
"""What differs from host to host and from day to day."""


def chapter(title: str = "## Later") -> list[tuple[list[str], list[str]]]:
    """Return a chapter's commands, as words, each with the lines that it prints."""
    mark = title.split()[0]
    text = (PROJECT / "README.md").read_text().partition(f"\n{title}\n")[2].partition(f"\n{mark} ")[0]
    found: list[tuple[list[str], list[str]]] = []
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ bundler "):
                found.append((line.split()[2:], []))
            else:
                found[-1][1].append(line)
    return found


def masked(lines: list[str]) -> list[str]:
    """Take out of lines what differs from run to run."""
    for mask, word in MASKS:
        lines = [re.sub(mask, word, line) for line in lines]
    return lines


def fits(shown: list[str], printed: list[str]) -> bool:
    """Say whether lines are those that are shown, where a line of its own stands for any others."""
    lines = (".*" if line == ELIDED else re.escape(line) + "\n" for line in masked(shown))
    return (
        re.fullmatch("".join(lines), "".join(f"{line}\n" for line in masked(printed)), re.DOTALL) is not None
    )


def test_the_comparison_can_fail() -> None:
    shown = ["unpack: 27.6 MB, 0 s, 178 MB/s", ELIDED, "done"]
    assert fits(shown, ["unpack: 1 GB, 12 s, 9 kB/s", "more", "done"])
    assert not fits(shown, ["unpacked: 1 GB, 12 s, 9 kB/s", "done"])
    assert not fits(shown, ["unpack: 1 GB, 12 s, 9 kB/s", "done", "more"])
    assert len(chapter()) >= 8


def test_pack_prints_what_is_shown(packed: Path, tmp_path: Path) -> None:
    ((words, shown),) = chapter("### With a network: pack")
    workspace = tmp_path / "workspace"
    shutil.copytree(packed.parents[1] / "workspace", workspace, symlinks=True)
    shutil.copytree(packed.parents[1] / "tiny-glm4-moe", workspace / "tiny-glm4-moe")
    real = {"/media/disk": str(tmp_path / "disk"), "WORKSPACE": str(workspace)}
    command = [word.replace("/media/disk", real["/media/disk"]) for word in words]
    command[command.index("tiny-glm4-moe")] = "./tiny-glm4-moe"
    printed = _run([*command, "--rehearse-again"], None, workspace)
    for name, place in real.items():
        printed = [line.replace(place, name) for line in printed]
    assert fits(shown, printed), "\n".join([" ".join(words), *printed])


def test_what_is_shown_is_printed(packed: Path, newer: Path, tmp_path: Path) -> None:
    assert run_bundler("unpack", packed, tmp_path / "glm", *NATIVE).returncode == 0
    (tmp_path / "second-disk").mkdir()
    real = {
        "/media/newer": str(newer),
        "/media/disk/tiny-glm4-moe-demo": str(packed),
        "/media/second": str(tmp_path / "second-disk"),
        "/opt/second": str(tmp_path / "second-host"),
        "/opt/glm": str(tmp_path / "glm"),
    }
    hosts = iter(("http://10.0.0.5:8000/", "http://10.0.0.6:8000/"))
    digest = ""
    with ExitStack() as running:
        for words, shown in chapter():
            command = [*words, *(NATIVE if words[0] == "unpack" else ())]
            for name, place in real.items():
                command = [word.replace(name, place) for word in command]
            stays = "share" in words or "--share" in words
            command = [re.sub("^[0-9a-f]{64}$", digest, word) for word in command]
            printed = _run(command, running if stays else None)
            if stays:
                (line,) = (line for line in printed if line.startswith("on the "))
                real[next(hosts)] = line.split()[line.split().index("unpack") + 1]
                digest = line.split()[line.split().index("--sha256") + 1]
            for name, place in real.items():
                printed = [line.replace(place, name) for line in printed]
            assert fits(shown, printed), "\n".join([" ".join(words), *printed])


def _run(words: list[str], running: ExitStack | None, folder: Path | None = None) -> list[str]:
    """Return what a command prints, on both streams; one that goes on is ended with the stack."""
    more = ["--bind", "127.0.0.1", "--port", "0"] if running is not None else []
    process = subprocess.Popen(
        [sys.executable, "-m", "bundler", *words, *more],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    if running is None:
        printed = process.communicate(timeout=200)[0].splitlines()
        assert process.returncode == 0, printed
        return printed
    running.callback(process.wait)
    running.callback(process.send_signal, signal.SIGINT)
    printed = []
    for line in process.stdout:
        printed.append(line.rstrip("\n"))
        if line.startswith("sharing "):
            return printed
    pytest.fail("\n".join(printed))
