"""The server's life: start, readiness, failure and end, against a stand-in with real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bundler.errors import DoctorError, NotRunningError, ServeError, UsageError
from bundler.serve import process
from bundler.serve.launch import Wishes
from bundler.serve.process_tree import started_at
from bundler.serve.server_record import ServerState, servers, write_state

from .conftest import Bench, gpu
from .test_launch import HOST, launch


def wait_for(condition, seconds=20.0):
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it didn't come to that")


def test_detach_status_smoke_stop(bench: Bench) -> None:
    """A detached server is ready, answers, is seen by status, and leaves nothing behind."""
    done = bench.run(*bench.serve("--detach"), STANDIN="slow,stubborn")
    assert done.returncode == 0, done.stderr
    assert "loading weights" in done.stderr
    assert "ready after" in done.stderr
    assert "weights read ahead" in done.stderr
    status = json.loads(bench.run("status", "--json").stdout)["servers"][0]
    assert status["running"] and status["health"] == "ready" and status["port"] == bench.port
    assert len(bench.processes()) == 3  # the server, its rank, the stubborn stray
    smoke = bench.run("smoke", "--json")
    assert smoke.returncode == 0, smoke.stderr
    results = json.loads(smoke.stdout)["rounds"][0]["results"]
    assert [one["check"] for one in results] == ["models", "chat", "tool call", "reasoning", "image"]
    assert all(one["passed"] for one in results)
    stopped = bench.run("stop", "--grace", "2")
    assert stopped.returncode == 0, stopped.stderr
    assert "nothing left" in stopped.stdout
    assert bench.processes() == []
    assert bench.run("status").returncode == NotRunningError.exit_code
    assert bench.run("stop").returncode == NotRunningError.exit_code


def test_command_and_environment(bench: Bench) -> None:
    """The process gets each flag once, the user's last, and variables of which the user's win."""
    done = bench.run(
        *bench.serve("--detach", "--", "--attention-backend", "torch_native", "--reasoning-parser=qwen3"),
        SGLANG_ENABLE_JIT_DEEPGEMM="true",
    )
    assert done.returncode == 0, done.stderr
    assert "kept from your environment: SGLANG_ENABLE_JIT_DEEPGEMM=true" in done.stderr
    record = bench.record()
    argv, env = record["argv"], record["env"]
    assert argv.count("--attention-backend") == 1
    assert "glm45" not in argv and argv[-1] == "--reasoning-parser=qwen3"
    assert argv[argv.index("--tool-call-parser") + 1] == "glm47"
    assert argv[argv.index("--tp-size") + 1] == "1"
    assert env["SGLANG_ENABLE_JIT_DEEPGEMM"] == "true"
    assert env["SGLANG_IS_FLASHINFER_AVAILABLE"] == "false"
    assert env["HF_HUB_OFFLINE"] == "1" and env["GLOO_SOCKET_IFNAME"] == "lo"
    shim = Path(env["TRITON_LIBCUDA_PATH"]) / "libcuda.so"
    assert str(shim.readlink()) == f"{bench.tmp}/lib/libcuda.so.1"
    assert Path(env["TRITON_CACHE_DIR"]).is_dir() and env["TRITON_CACHE_DIR"].startswith(str(bench.root))
    assert bench.run("stop").returncode == 0


def test_crash_while_loading_is_explained(bench: Bench) -> None:
    """A child's end ends the wait at once, with the cause and the fix."""
    began = time.monotonic()
    done = bench.run(*bench.serve("--detach"), STANDIN="crash,stubborn")
    assert done.returncode == ServeError.exit_code
    assert time.monotonic() - began < 20
    assert "cause: the weights leave no room for the KV cache" in done.stderr
    assert "exit code 3" in done.stderr and "loading weights" in done.stderr
    assert "raise --mem-fraction-static" in done.stderr
    assert bench.processes() == []
    assert bench.run("status").returncode == NotRunningError.exit_code


@pytest.mark.parametrize(("mode", "doing"), [("hang", "/health: starting"), ("silent", "/health: refused")])
def test_patience_ends(bench: Bench, mode: str, doing: str) -> None:
    """A server that doesn't become ready is ended when the time is up, and what it was doing is said."""
    done = bench.run(*bench.serve("--detach", "--timeout", "2"), STANDIN=mode)
    assert done.returncode == ServeError.exit_code
    assert "isn't ready after 2 s" in done.stderr and doing in done.stderr
    assert bench.processes() == []


@pytest.mark.parametrize(
    ("number", "mode"),
    [
        (signal.SIGINT, "silent,stubborn"),
        (signal.SIGINT, "stubborn"),
        (signal.SIGTERM, "stubborn"),
        (signal.SIGHUP, "silent,stubborn"),
    ],
)
def test_signals_end_the_whole_tree(bench: Bench, number: signal.Signals, mode: str) -> None:
    """Ctrl-C, SIGTERM and SIGHUP end server, ranks and strays, while it loads and while it serves."""
    process = bench.popen(*bench.serve(), STANDIN=mode)
    try:
        wait_for(lambda: len(bench.processes()) >= 4)  # bundler itself too
        if mode == "stubborn":
            wait_for(lambda: '"ready_after"' in _state(bench))
        process.send_signal(number)
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == (130 if number == signal.SIGINT else 0), output
    assert bench.processes() == []
    assert not list((bench.root / ".bundler/run").glob("*.json"))


def test_end_while_serving(bench: Bench) -> None:
    """A server that is killed while it serves is reported with the cause, and its ranks are ended."""
    done = bench.run(*bench.serve(), STANDIN="dies,stubborn")
    assert done.returncode == ServeError.exit_code
    assert "the server ended: SIGKILL" in done.stderr
    assert "a GPU ran out of memory" in done.stderr
    assert "fired up" in done.stdout
    assert bench.processes() == []


def test_killed_detached_server_is_told(bench: Bench) -> None:
    """status and stop tell of a detached server that was killed, and stop ends what it left."""
    assert bench.run(*bench.serve("--detach"), STANDIN="stubborn").returncode == 0
    pid = json.loads(bench.run("status", "--json").stdout)["servers"][0]["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: pid not in bench.processes())
    status = bench.run("status")
    assert status.returncode == NotRunningError.exit_code
    assert "ended by itself" in status.stderr
    assert bench.processes() != []
    refused = bench.run(*bench.serve("--detach"))
    assert refused.returncode == ServeError.exit_code  # its strays still hold the GPUs
    assert bench.run("stop", "--grace", "1").returncode == 0
    assert bench.processes() == []


def test_a_rank_that_dies_while_serving(bench: Bench) -> None:
    """A lost rank is told by status where the server is detached, and ends it in the foreground."""
    assert bench.run(*bench.serve("--detach"), STANDIN="ranked").returncode == 0
    assert bench.run("status").returncode == 0
    os.kill(bench.record()["pids"][-1], signal.SIGKILL)
    status = bench.run("status")
    assert status.returncode == ServeError.exit_code and "lost sglang::scheduler_TP0" in status.stderr
    assert bench.run("stop").returncode == 0
    process = bench.popen(*bench.serve(), STANDIN="ranked")
    try:
        wait_for(lambda: '"ready_after"' in _state(bench))
        os.kill(bench.record()["pids"][-1], signal.SIGKILL)
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == ServeError.exit_code, output
    assert "the server lost sglang::scheduler_TP0" in output
    assert bench.processes() == []


def test_ranks_that_overwrote_their_environment(bench: Bench) -> None:
    """A rank that lost the marker, as setproctitle makes it, is found by its session when it is orphaned."""
    assert bench.run(*bench.serve("--detach"), STANDIN="bare").returncode == 0
    rank = bench.record()["pids"][-1]
    os.kill(json.loads(bench.run("status", "--json").stdout)["servers"][0]["pid"], signal.SIGKILL)
    assert Path(f"/proc/{rank}/environ").read_bytes() == b""
    assert bench.run("stop", "--grace", "1").returncode == 0
    assert started_at(rank) is None


def test_reused_pid_is_left_alone(bench: Bench) -> None:
    """A process that got a dead server's pid is neither taken for it nor ended."""
    assert bench.run(*bench.serve("--detach")).returncode == 0
    path = next((bench.root / ".bundler/run").glob("server-*.json"))
    state = json.loads(path.read_text())
    assert bench.run("stop").returncode == 0
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        path.write_text(json.dumps(state | {"pid": bystander.pid}))
        assert bench.run("status").returncode == NotRunningError.exit_code
        assert bench.run("stop").returncode == 0
        assert bystander.poll() is None
    finally:
        bystander.kill()


def test_second_server_and_taken_port(bench: Bench) -> None:
    """The same server twice and a port that something else holds are refused before anything starts."""
    import socket

    assert bench.run(*bench.serve("--detach")).returncode == 0
    second = bench.run(*bench.serve("--detach"))
    assert second.returncode == ServeError.exit_code and f"bundler stop --port {bench.port}" in second.stderr
    assert bench.run("stop").returncode == 0
    with socket.create_server(("127.0.0.1", bench.port)):
        taken = bench.run(*bench.serve("--detach"))
    assert taken.returncode == DoctorError.exit_code
    assert f"{bench.port} is taken" in taken.stderr and f"--port {bench.port + 1}" in taken.stderr


def test_too_large_tp_size(bench: Bench) -> None:
    """A tp-size beyond the GPUs, or one that doesn't divide the heads, is refused by name."""
    bench.gpus(*(gpu(index) for index in range(4)))
    done = bench.run(*bench.serve("--tp-size", "8"))
    assert done.returncode == DoctorError.exit_code
    assert "4 visible of 4; wanted: 8 for tp-size 8" in done.stderr
    done = bench.run(*bench.serve("--tp-size", "3"))
    assert "8 heads, 8 KV heads; wanted: divisible by tp-size 3; --tp-size 1, 2" in done.stderr


def test_stop_ends_the_bundler_in_the_foreground_in_order(bench: Bench) -> None:
    """A server in the foreground that `bundler stop` ends didn't fail: a unit must not start it again."""
    process = bench.popen(*bench.serve())
    try:
        wait_for(lambda: '"ready_after"' in _state(bench))
        assert bench.run("stop").returncode == 0
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert output.rstrip().endswith("stopped")
    assert bench.processes() == []


def test_followed_log_is_shown_to_its_end(bench: Bench) -> None:
    """What a server says at its very end is what one follows its log for."""
    assert bench.run(*bench.serve("--detach"), STANDIN="dies").returncode == 0
    assert "CUDA out of memory" in bench.run("logs", "-f", "-n", "1").stdout


def test_key_is_seen_nowhere(bench: Bench, tmp_path: Path) -> None:
    """The API key reaches SGLang, and neither the process list nor the shown log shows it."""
    key = tmp_path / "key"
    key.write_text("secret-word\n")
    key.chmod(0o644)
    refused = bench.run(*bench.serve("--api-key-file", str(key)))
    assert refused.returncode == UsageError.exit_code and "chmod 600" in refused.stderr
    key.chmod(0o600)
    process = bench.popen(*bench.serve("--api-key-file", str(key)))
    try:
        wait_for(lambda: '"ready_after"' in _state(bench))
        arguments = [Path(f"/proc/{pid}/cmdline").read_text() for pid in bench.processes()]
        assert not any("secret-word" in line for line in arguments)
        (flags,) = (bench.root / ".bundler/run").glob("*.yaml")
        assert flags.stat().st_mode & 0o077 == 0
        assert bench.run("smoke").returncode == 0
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert "api_key='***'" in output and "secret-word" not in output
    left = [path for path in (bench.root / ".bundler/run").iterdir() if path.suffix == ".yaml"]
    assert left == []
    log = next((bench.root / ".bundler/run").glob("*.log"))
    assert log.stat().st_mode & 0o077 == 0
    shown = bench.run("logs").stdout
    assert "api_key='***'" in shown and "secret-word" not in shown


def test_wrong_answers_fail_the_smoke_test(bench: Bench) -> None:
    """An empty answer and a tool call that isn't one fail, each by name; the server is stopped even so."""
    done = bench.run(
        "smoke",
        "--python",
        bench.python,
        "--host",
        "127.0.0.1",
        "--port",
        str(bench.port),
        STANDIN="gibberish",
    )
    assert done.returncode == ServeError.exit_code
    assert "FAIL chat" in done.stdout and "FAIL tool call" in done.stdout
    assert "ok   models" in done.stdout
    assert bench.processes() == []


def test_status_waits(bench: Bench) -> None:
    """``status --wait`` waits for a server that is still to be started."""
    waiting = bench.popen("status", "--wait", "30")
    assert bench.run(*bench.serve("--detach", "--no-wait"), STANDIN="slow").returncode == 0
    output, _ = waiting.communicate(timeout=30)
    assert waiting.returncode == 0, output
    assert "ready" in output
    assert "fired up" in bench.run("logs").stdout
    assert bench.run("stop").returncode == 0


def _state(bench: Bench) -> str:
    found = list((bench.root / ".bundler/run").glob("server-*.json"))
    text = found[0].read_text() if found else ""
    return text if '"ready_after": null' not in text else ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_is_ended_though_nobody_listens(bench: Bench, number: signal.Signals) -> None:
    """`serve | head`: the reader of the output is gone, and the server is ended all the same."""
    process = bench.popen(*bench.serve(), STANDIN="stubborn")
    try:
        wait_for(lambda: '"ready_after"' in _state(bench))
        process.stdout.close()
        process.send_signal(number)
        process.wait(timeout=30)
    finally:
        process.kill()
    assert bench.processes() == []
    assert not list((bench.root / ".bundler/run").glob("*.json"))


def test_a_closed_terminal_ends_the_server(bench: Bench) -> None:
    """A terminal that is closed sends SIGHUP and takes no more words; the server is ended."""
    controller, terminal = os.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *bench.command(*bench.serve())],
        cwd=bench.root,
        env=bench.env | {"STANDIN": "stubborn"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    try:
        wait_for(lambda: '"ready_after"' in _state(bench))
        os.close(controller)
        process.wait(timeout=30)
        wait_for(lambda: bench.processes() == [])
    finally:
        process.kill()


def test_smoke_ends_its_server_though_nobody_listens(bench: Bench) -> None:
    """`smoke | head -1` leaves no server."""
    words = ("smoke", "--python", bench.python, "--host", "127.0.0.1", "--port", str(bench.port))
    process = bench.popen(*words, STANDIN="slow,stubborn")
    try:
        wait_for(lambda: list((bench.root / ".bundler/run").glob("server-*.json")))
        process.stdout.close()
        process.wait(timeout=40)
    finally:
        process.kill()
    assert bench.processes() == []


def test_interrupted_server_says_stopped(bench: Bench) -> None:
    """Ctrl-C in the foreground ends with the word that it is done."""
    process = bench.popen(*bench.serve())
    try:
        wait_for(lambda: '"ready_after"' in _state(bench))
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130 and "\nstopped\n" in output


def test_modules_of_the_callers_folder_are_not_run(bench: Bench) -> None:
    """What anybody laid where bundler is called is run by neither probe, check nor server."""
    (bench.root / "sglang").mkdir()
    for name in ("sglang/__init__.py", "sglang/launch_server.py", "json.py", "platform.py"):
        (bench.root / name).write_text(f"open({str(bench.tmp / 'taken')!r}, 'a').write({name!r})\n")
    template = bench.root / "my.jinja"
    template.touch()

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-P", "-m", "bundler", *words]
        return subprocess.run(
            command, cwd=bench.root, env=bench.env, capture_output=True, text=True, timeout=60
        )

    done = run(*bench.serve("--detach", "--", "--chat-template", "my.jinja"))
    assert not (bench.tmp / "taken").exists(), (bench.tmp / "taken").read_text()
    assert done.returncode == 0, done.stderr
    record = bench.record()
    assert record["env"]["PYTHONSAFEPATH"] == "1"
    # Python up to 3.10 doesn't know that variable: an empty folder keeps it safe.
    own = Path(f"/proc/{record['pids'][0]}/cwd").resolve()
    assert own.parent == bench.root / ".bundler/run" and list(own.iterdir()) == []
    assert record["argv"][record["argv"].index("--chat-template") + 1] == str(template)
    run("check", "--python", bench.python, "--json")
    assert not (bench.tmp / "taken").exists()
    assert run("stop", "--all").returncode == 0


def test_the_callers_surroundings_stay_outside(bench: Bench) -> None:
    """Proxies and another interpreter's variables don't reach the server, unless they are kept by name."""
    foreign = {
        "http_proxy": "http://127.0.0.1:9",
        "HTTPS_PROXY": "x",
        "PYTHONWARNINGS": "ignore",
        "PIP_INDEX_URL": "x",
    }
    passed = {"NCCL_DEBUG": "WARN", "SGLANG_X": "1", "TORCH_X": "1", "CUDA_X": "1", "NVSHMEM_X": "1"}
    shown = bench.run(*bench.serve("--dry-run"), **foreign, **passed)
    for name in foreign:
        assert f"-u {name}" in shown.stdout and name in shown.stderr
    words = bench.serve("--detach", "--keep-env", "PIP_INDEX_URL", "--keep-env", "HTTPS_PROXY")
    assert bench.run(*words, **foreign, **passed).returncode == 0
    env = bench.record()["env"]
    assert not {"http_proxy", "PYTHONWARNINGS"} & set(env)
    assert env["PIP_INDEX_URL"] == env["HTTPS_PROXY"] == "x"
    assert env.items() >= passed.items()
    assert env["LD_LIBRARY_PATH"] == f"{bench.tmp}/lib"  # where the driver was found
    assert bench.run("stop").returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_smoke_told_to_end_while_it_asks(bench: Bench, number: signal.Signals) -> None:
    """A signal while the server is asked ends it, with the exit code that a shell gives the signal."""
    words = ("smoke", "--python", bench.python, "--host", "127.0.0.1", "--port", str(bench.port))
    process = bench.popen(*words, STANDIN="slow,stubborn")
    try:
        wait_for(lambda: list((bench.root / ".bundler/run").glob("server-*.json")))
        process.send_signal(number)
        output, _ = process.communicate(timeout=40)
    finally:
        process.kill()
    assert process.returncode == 128 + number, output
    assert output.rstrip().endswith("stopped") and "Traceback" not in output
    assert bench.processes() == []


def test_smoke_of_a_server_that_crashes(bench: Bench) -> None:
    """The cause is told, and nothing is left."""
    words = ("smoke", "--python", bench.python, "--host", "127.0.0.1", "--port", str(bench.port))
    done = bench.run(*words, STANDIN="crash,stubborn")
    assert done.returncode == ServeError.exit_code and "KV cache" in done.stderr
    assert bench.processes() == []


def test_an_old_interpreter_runs_no_module_of_the_callers_folder(bench: Bench) -> None:
    """Python up to 3.10 imports from the folder it is started in, whatever the variables say."""
    python = Path(bench.python)
    python.write_text(python.read_text().replace("PYTHONPATH=", "unset PYTHONSAFEPATH; PYTHONPATH="))
    (bench.root / "json.py").write_text(f"open({str(bench.tmp / 'taken')!r}, 'w')\n")
    command = [sys.executable, "-P", "-m", "bundler", *bench.serve("--detach")]
    done = subprocess.run(command, cwd=bench.root, env=bench.env, capture_output=True, text=True, timeout=60)
    assert not (bench.tmp / "taken").exists()
    assert done.returncode == 0, done.stderr
    assert bench.run("stop", PYTHONSAFEPATH="1").returncode == 0


SIGNALLED = """
import os, sys
from bundler.cli.main import run
from bundler.serve import process
from bundler.serve.launch import Wishes

record = process.write_state

def signalled(*words):
    record(*words)
    os.kill(os.getpid(), int(sys.argv[1]))

process.write_state = signalled
run(sys.argv[2:])
"""


@pytest.mark.parametrize(
    "command", [("serve",), ("serve", "--detach"), ("serve", "--detach", "--no-wait"), ("smoke",)]
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_the_server_is_being_started(
    bench: Bench, command: tuple[str, ...], number: signal.Signals
) -> None:
    """One that comes when the process is there, and nobody watches it yet, ends it all the same."""
    words = (
        *command,
        "--python",
        bench.python,
        "--host",
        "127.0.0.1",
        "--port",
        str(bench.port),
        "--no-doctor",
    )
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED, str(int(number)), *words],
        cwd=bench.root,
        env=bench.env | {"STANDIN": "stubborn"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert bench.processes() == []
    assert not list((bench.root / ".bundler/run").glob("*.json"))
    orderly = 0 if command == ("serve",) else 128 + number
    assert done.returncode == (130 if number == signal.SIGINT else orderly), done.stderr
    assert "Traceback" not in done.stderr and "\nstopped\n" in done.stderr


def test_a_server_that_cannot_be_recorded_is_ended(bench: Bench) -> None:
    """Nobody would find it again."""
    (bench.root / f".bundler/run/server-{bench.port}.json/taken").mkdir(parents=True)
    done = bench.run(*bench.serve("--detach"), STANDIN="stubborn")
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert bench.processes() == []


def test_stop_waits_for_the_gpus_memory(bench: Bench) -> None:
    """The next server needs what the driver gives back only after the last process is gone."""
    assert bench.run(*bench.serve("--detach")).returncode == 0
    bench.gpus(gpu(0, free=40_000_000_000))
    stopping = bench.popen("stop")
    try:
        wait_for(lambda: set(bench.processes()) <= {stopping.pid})
        time.sleep(1)
        assert stopping.poll() is None
        bench.gpus(gpu(0))
        output, _ = stopping.communicate(timeout=30)
    finally:
        stopping.kill()
    assert stopping.returncode == 0 and "GPU memory as before it" in output


def test_what_cannot_be_ended_is_said_and_stays_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes of another user, or that hang in the driver."""
    state = ServerState(
        pid=os.getpid(), start="", marker="m", started=0.0, model="tiny", served_name="tiny", argv=(),
        environment=None, url="http://127.0.0.1:1", port=1, tp_size=1, log="server.log",
    )  # fmt: skip
    write_state(tmp_path, state)
    monkeypatch.setattr(process, "end_tree", lambda first, grace: [4711])
    with pytest.raises(ServeError, match="can't be ended: 4711"):
        process.stop(tmp_path, state)
    assert servers(tmp_path) == [state]


def test_start_itself_refuses_a_second_server(bench: Bench) -> None:
    """Of two commands that both saw none a moment before, the later one finds the other's, under the lock."""
    assert bench.run(*bench.serve("--detach")).returncode == 0
    again = launch(Wishes(port=bench.port), root=bench.root, caches=bench.tmp / "caches")
    with pytest.raises(ServeError, match="a server runs here already"):
        process.start(again, HOST, {}, detach=True)
    assert bench.run("stop").returncode == 0


def test_the_last_words_count_though_their_line_has_no_end(bench: Bench) -> None:
    """What a process that crashes says last is often the cause."""
    done = bench.run(*bench.serve("--detach"), STANDIN="abrupt")
    assert done.returncode == ServeError.exit_code
    assert "cause: /dev/shm is full or too small" in done.stderr
