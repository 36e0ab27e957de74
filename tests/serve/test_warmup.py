"""Ready means warm, and a start that hangs says where."""

import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bundler.errors import ServeError
from bundler.serve.stacks import main_frames, places
from tests.support.terminal import read_to_end

from .conftest import Bench
from .test_process import wait_for

DUMP = """Process 77: sglang::scheduler_TP0
Python v3.12.1 (/opt/env/bin/python3.12)

Thread 80 (idle): "Thread-1"
    wait (threading.py:331)
Thread 77 (active): "MainThread"
    all_reduce (torch/distributed/distributed_c10d.py:2810)
    create_allreduce_workspace (flashinfer/comm/trtllm_ar.py:420)
    forward (sglang/srt/models/glm4_moe.py:300)
    run (a.py:1)
    main (a.py:9)
"""


@pytest.fixture
def py_spy(bench: Bench) -> None:
    """Bring py-spy into the played environment, where SGLang's own dependencies bring it."""
    found = Path(sys.executable).parent / "py-spy"
    if not found.exists():
        pytest.skip("py-spy is not here")
    (bench.tmp / "bin" / "py-spy").symlink_to(found)


def asked(bench: Bench) -> list[dict[str, object]]:
    """Return the chats that the stand-in was asked."""
    path = bench.tmp / "asked.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_ready_is_warm(bench: Bench) -> None:
    """Before it is ready it has answered a short and a long prompt, and what smoke asks."""
    done = bench.run(*bench.serve("--detach"), STANDIN="cold")
    assert done.returncode == 0, done.stderr
    bodies = asked(bench)
    contents = [str(body["messages"][0]["content"]) for body in bodies]
    assert len(bodies) == 5 and len(contents[1]) > 5000 > len(contents[0])
    assert "tools" in bodies[2] and "Think" in contents[3] and "image_url" in contents[4]
    assert all(body["model"] == "tiny-served" and body["max_tokens"] <= 32 for body in bodies)
    lines = done.stderr.splitlines()
    assert any(line.startswith("warming up with chats: a short prompt, 1 of 5, ") for line in lines), lines
    said = re.search(r"^warmed up by a short prompt: (\d+\.\d) s$", done.stderr, re.MULTILINE)
    assert said and float(said[1]) >= 1.5
    assert re.search(r"^ +\d+\.\d s  warming up with chats$", done.stderr, re.MULTILINE)
    began = time.monotonic()
    assert bench.run("smoke").returncode == 0
    assert time.monotonic() - began < 10


def test_status_is_not_ready_before(bench: Bench) -> None:
    """What waits for the server, as the unit does, waits until it is warm."""
    process = bench.popen(*bench.serve("--no-log"), STANDIN="mute")
    try:
        wait_for(lambda: asked(bench))
        assert "warming up" in bench.run("status").stdout
        assert bench.run("status", "--wait", "1").returncode == ServeError.exit_code
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output
    assert bench.processes() == []


def test_without(bench: Bench) -> None:
    """Nothing is asked where it isn't wanted, nor by who doesn't wait."""
    assert bench.run(*bench.serve("--detach", "--no-warm-up"), STANDIN="mute").returncode == 0
    assert asked(bench) == []
    assert ", ready after" in bench.run("status").stdout
    assert bench.run("stop", "--grace", "1").returncode == 0


def test_a_long_prompt_that_is_refused(bench: Bench) -> None:
    """A model with a small context is asked less, and a refusal is no failure."""
    done = bench.run(*bench.serve("--detach"), STANDIN="short")
    assert done.returncode == 0, done.stderr
    assert len(asked(bench)) == 7
    assert "not answered" not in done.stderr


def test_with_a_key(bench: Bench, tmp_path: Path) -> None:
    """The first chats give the key, of a file as of SGLang's own flag's."""
    key = tmp_path / "key"
    key.write_text("secret-word\n")
    key.chmod(0o600)
    done = bench.run(*bench.serve("--detach", "--api-key-file", str(key)))
    assert done.returncode == 0, done.stderr
    assert len(asked(bench)) == 5 and "not answered" not in done.stderr


def test_a_server_that_ends_at_its_first_chat(bench: Bench) -> None:
    """It was never ready, and the cause is told."""
    done = bench.run(*bench.serve("--detach"), STANDIN="fragile,stubborn")
    assert done.returncode == ServeError.exit_code
    assert "the server ended while warming up with chats" in done.stderr
    assert "cause: something is compiled at run time with nvcc" in done.stderr
    assert bench.processes() == []


@pytest.mark.usefixtures("py_spy")
def test_a_hang_says_where(bench: Bench) -> None:
    """The ranks' stacks are in the log, their innermost frames in the message."""
    done = bench.run(*bench.serve("--detach", "--timeout", "3"), STANDIN="stuck")
    assert done.returncode == ServeError.exit_code
    place = re.search(r"sglang::scheduler_TP0 \(pid \d+\): (.*)", done.stderr)
    assert place, done.stderr
    assert place[1].startswith("all_reduce (") and " < forward (" in place[1]
    log = next((bench.root / ".bundler/run").glob("*.log")).read_text()
    assert "the stacks of the server's processes" in log and "all_reduce (" in log
    assert bench.processes() == []


@pytest.mark.usefixtures("py_spy")
def test_a_chat_that_hangs(bench: Bench) -> None:
    """So does one that is never answered."""
    done = bench.run(*bench.serve("--detach", "--timeout", "4"), STANDIN="mute")
    assert done.returncode == ServeError.exit_code
    assert "it was warming up with chats: a short prompt, 1 of 5" in done.stderr
    assert re.search(r"\(pid \d+\): main \(\S*launch_server.py:\d+\)", done.stderr), done.stderr
    assert bench.processes() == []


def test_frames() -> None:
    """The main thread's innermost frames are shown, ranks at the same place together."""
    assert main_frames(DUMP)[0] == "all_reduce (torch/distributed/distributed_c10d.py:2810)"
    assert len(main_frames(DUMP)) == 4
    found = places({"TP0": DUMP, "TP1": DUMP, "TP2": "Error: Permission denied"})
    assert found[0].startswith("TP0, TP1: all_reduce (")
    assert found[1] == "TP2: Error: Permission denied"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_stage_that_stays_is_one_line(bench: Bench, terminal: bool) -> None:
    """On a terminal it counts in place; in a file it is told once, and seldom after that."""
    command = bench.command(*bench.serve("--detach", "--timeout", "5"))
    mine, theirs = pty.openpty() if terminal else os.pipe()
    if terminal:
        import fcntl
        import struct
        import termios

        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 200, 0, 0))
    process = subprocess.Popen(command, cwd=bench.root, env=bench.env | {"STANDIN": "silent"}, stderr=theirs)
    os.close(theirs)
    output = read_to_end(mine)
    process.wait(timeout=30)
    text = output.decode()
    lines = text.replace("\r", "\n").splitlines()
    counted = [line for line in lines if re.search(r"starting HTTP, \d s", line)]
    if terminal:
        assert len({line.strip() for line in counted}) >= 3, text
        assert len([line for line in text.split("\n") if "starting HTTP, 1 s" in line]) == 1
    else:
        assert len([line for line in counted if "isn't ready" not in line]) == 1, text
