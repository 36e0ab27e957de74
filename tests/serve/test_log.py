"""Reading the server's log: stages, bars, failures."""

from pathlib import Path

import pytest

from bundler.environment_check import CheckResult
from bundler.serve.check import table
from bundler.serve.failures import FAILURES, ending, explain, telling
from bundler.serve.progress_log import LogTail, Progress

# Lines as SGLang, torch and Triton print them.
LINES = {
    "[Errno 98] error while attempting to bind on address ('0.0.0.0', 30000): address already in use": "port",
    "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static. ": "KV cache",
    "ValueError: The memory capacity is unbalanced. Some GPUs may be occupied": "free memory",
    "Exception: Capture cuda graph failed: CUDA error": "CUDA graphs",
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.00 GiB": "out of memory",
    "  Or skip the check with SGLANG_DISABLE_CUDNN_CHECK=1": "cuDNN",
    "    assert cuda_home is not None": "DeepGEMM",
    "/usr/bin/ld: cannot find -lcuda: No such file or directory": "libcuda.so",
    "RuntimeError: Failed to find C compiler. Please specify via CC environment variable": "C compiler",
    "ImportError: libnuma.so.1: cannot open shared object file": "libnuma",
    "RuntimeError: Could not find nvcc and default cuda_home='/usr/local/cuda' doesn't exist": "nvcc",
    "FileNotFoundError: [Errno 2] No such file or directory: 'ninja'": "ninja",
    "ImportError: libnvrtc.so.12: cannot open shared object file": "CUDA library",
    "CUDA error: no kernel image is available for execution on the device": "code for this GPU",
    "The NVIDIA driver on your system is too old (found version 11040)": "driver",
    "CUDA error: system not yet initialized": "fabric manager",
    "RuntimeError: No accelerator (CUDA, XPU, HPU, NPU) is available.": "libcuda.so.1 can't be loaded",
    "RuntimeError: CUDA error: invalid device ordinal": "fewer GPUs",
    "TP rank 3 could finish the model loading, but there are other ranks that didn't finish": "480 s",
    "[rank1]: Watchdog caught collective operation timeout: WorkNCCL(SeqNum=1)": "NCCL waited",
    "torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:123": "NCCL failed",
    "RuntimeError: Gloo connectFullMesh failed with [../gloo/pair.cc:144] no error": "gloo",
    "launch_server.py: error: argument --tool-call-parser: invalid choice: 'glm47'": "value of a flag",
    "launch_server.py: error: unrecognized arguments: --nonsense": "a flag",
    "safetensors_rust.SafetensorError: Error while deserializing header: MetadataIncompleteBuffer": "damaged",
    "/opt/bin/python: Error while finding module: No module named 'sglang'": "no SGLang",
    "OSError: [Errno 28] No space left on device": "disk is full",
    "Fatal Python error: Bus error": "/dev/shm",
    "urllib3.exceptions.MaxRetryError: Max retries exceeded with url: /api/models": "no network",
}


@pytest.mark.parametrize(("line", "word"), LINES.items())
def test_known_failures(line: str, word: str) -> None:
    """Each known failure is recognised among other lines, with a cause and a fix."""
    known = explain(["Load weight begin.", line, "Killed"])
    assert known is not None
    assert word in known.cause
    assert known.fix


def test_causes_come_before_their_consequences() -> None:
    """Of two failures in one log the particular one is named, whichever was printed first."""
    lines = ["torch.OutOfMemoryError: CUDA out of memory.", "Exception: Capture cuda graph failed: see above"]
    known = explain(lines)
    assert known is not None and "CUDA graphs" in known.cause
    assert explain(["Load weight begin.", "all is well"]) is None
    assert len({failure.cause for failure in FAILURES}) == len(FAILURES)


def test_stages_and_bars() -> None:
    """Stages advance with the first rank and never go back; bars give the detail."""
    progress = Progress(100.0)
    progress.see("[TP1] Init torch distributed begin.", 110.0)
    progress.see("[TP0] Load weight begin. avail mem=78.8 GB", 120.0)
    progress.see("[TP1] Init torch distributed begin.", 121.0)
    assert progress.stage == "loading weights"
    progress.see("Loading safetensors checkpoint shards:  3% Completed | 3/93 [00:10<04:00,  2.9s/it]", 130.0)
    assert progress.line(142.0) == "loading weights: shard 3 of 93, 42 s"
    progress.see("Load weight end. type=Glm4MoeForCausalLM", 150.0)
    progress.see("Capture cuda graph begin. This can take up to several minutes.", 160.0)
    progress.see(
        "Capturing batches (bs=8 avail_mem=1.0 GB):  50%|#####     | 2/4 [00:01<00:01,  1.2it/s]", 161.0
    )
    assert progress.line(161.0) == "capturing graphs: graph 2 of 4, 1 min 01 s"
    progress.see("INFO:     Application startup complete.", 170.0)
    progress.see("The server is fired up and ready to roll!", 180.0)
    seconds = dict(progress.seconds(181.0))
    assert seconds["importing"] == 10 and seconds["loading weights"] == 30 and seconds["warming up"] == 11
    assert sum(seconds.values()) == 81


def test_newer_sglang_logs_its_graphs_otherwise() -> None:
    """From 0.5.17 the line names the kind of graph."""
    progress = Progress(0.0)
    progress.see("Capture decode CUDA graph begin. This can take up to several minutes.", 1.0)
    assert progress.stage == "capturing graphs"
    progress.see("Capture decode CUDA graph end. Time elapsed: 3 s", 2.0)
    assert progress.stage == "starting HTTP"


def test_tail(tmp_path: Path) -> None:
    """Lines come once each when they are whole; a carriage return ends one; the rest comes at the end."""
    log = tmp_path / "log"
    tail = LogTail(log)
    assert tail.read() == []
    log.write_bytes(b"one\ntwo 1/2\rtwo 2/2\nthr")
    assert tail.read() == ["one", "two 1/2", "two 2/2"]
    with log.open("ab") as file:
        file.write(b"ee\nfo\xffur")
    assert tail.read() == ["three"]
    assert tail.drain() == ["fo\N{REPLACEMENT CHARACTER}ur"]


def test_telling_lines() -> None:
    """What is shown of a log at its end is what says something."""
    lines = [
        "x",
        "",
        '  File "/a.py", line 3, in f',
        "    call()",
        "    ^^^^^^",
        "ValueError: no",
        " 50%|## [1.0it/s]",
    ]
    assert telling(lines) == ["x", "ValueError: no"]


FAILED_RANK = """[2026-11-25 10:00:00 TP0] Load weight begin. avail mem=78.8 GB
[10:00:01] Glm4MoeForCausalLM has no SGLang implementation, falling back to Transformers implementation.
[2026-11-25 10:00:02 TP1] Scheduler hit an exception: Traceback (most recent call last):
  File "/env/sglang/srt/managers/scheduler.py", line 2700, in run_scheduler_process
    raise RuntimeError("CUDA out of memory")
  File "/env/sglang/srt/model.py", line 3, in load
    weights[name]
    ~~~~~~~^^^^^^
KeyError: 'model.layers.3.mlp'

[2026-11-25 10:00:03] Received sigquit from a child process. It usually means the child failed.
""".splitlines()


def test_a_failed_rank_is_no_want_of_memory() -> None:
    """SGLang kills itself when a rank failed; the cause is the exception above, without the frames' code."""
    assert ending(-9, FAILED_RANK) == "SIGKILL (by itself, as a rank had failed)"
    assert telling(FAILED_RANK)[-1] == "KeyError: 'model.layers.3.mlp'"
    assert not any("weights[name]" in line or "sigquit" in line for line in telling(FAILED_RANK))
    assert explain(FAILED_RANK[:2]) is None
    known = explain(
        [
            '  File "a.py", line 3, in f',
            "    raise RuntimeError('CUDA out of memory')",
            "libnuma.so.1: cannot open",
        ]
    )
    assert known is not None and "libnuma" in known.cause


def test_a_rank_that_the_kernel_killed() -> None:
    """As SGLang 0.5.7 says it, with and without data parallelism."""
    for line in ("Exit code: -9", "Rank 0 scheduler 123 terminated with -9"):
        lines = [
            "Rank 0 scheduler is dead. Please check if there are relevant logs.",
            line,
            "Received sigquit from a child process.",
        ]
        known = explain(lines)
        assert known is not None and "a rank was killed" in known.cause, line


def test_the_hang_of_the_fused_all_reduce() -> None:
    """It is known by where the ranks are, and isn't taken from the line that says it is off."""
    known = explain(["sglang::scheduler_TP0 (pid 3): wait (flashinfer/comm/mnnvl.py:40) < f (a.py:1)"])
    assert known is not None and "NVLink multicast" in known.cause
    off = (
        "FlashInfer allreduce fusion is forcibly disabled via --enforce-disable-flashinfer-allreduce-fusion."
    )
    assert explain([off]) is None
    both = explain(["SymmDeviceMemory", "torch.OutOfMemoryError: CUDA out of memory"])
    assert both is not None and "memory" in both.cause


def test_the_draft_model_is_loaded_after_the_graphs() -> None:
    """With EAGLE weights are loaded and graphs captured a second time."""
    progress = Progress(0.0)
    lines = [
        "[2026-11-25 10:00:00 TP0] Init torch distributed begin.",
        "[2026-11-25 10:00:00 TP0] Load weight begin. avail mem=78.8 GB",
        "[2026-11-25 10:00:00 TP0] Load weight end.",
        "[2026-11-25 10:00:00 TP1] Load weight begin. avail mem=78.8 GB",
    ]
    for number, line in enumerate(lines):
        progress.see(line, number)
    assert progress.stage == "preparing memory"
    progress.see("[2026-11-25 10:00:00 TP0] Capture cuda graph begin.", 10.0)
    progress.see("[2026-11-25 10:00:00 TP0] Capture cuda graph end.", 20.0)
    assert progress.stage == "starting HTTP"
    progress.see("[2026-11-25 10:00:00 TP1] Load weight begin. avail mem=8 GB", 21.0)
    assert progress.line(22.0) == "loading the draft model, 22 s"
    progress.see("[2026-11-25 10:00:00 TP0] Load weight begin. avail mem=8 GB", 22.0)
    progress.see("[2026-11-25 10:00:00 TP0] Capture draft cuda graph begin.", 30.0)
    assert progress.stage == "capturing the draft's graphs"
    progress.see("[2026-11-25 10:00:00 TP0] Capture draft cuda graph end.", 31.0)
    progress.see("[2026-11-25 10:00:00 TP0] Capture draft extend cuda graph begin.", 32.0)
    assert progress.stage == "capturing the draft's graphs"
    progress.see("[2026-11-25 10:00:00 TP0] Capture draft extend cuda graph end.", 40.0)
    progress.see("INFO:     Application startup complete.", 41.0)
    seconds = dict(progress.seconds(50.0))
    assert seconds["loading the draft model"] == 9 and seconds["capturing the draft's graphs"] == 10
    assert seconds["warming up"] == 9 and sum(seconds.values()) == 50 and min(seconds.values()) >= 0


def test_the_library_that_is_missing_is_shown() -> None:
    """Not the last name that sgl_kernel tried."""
    seen = (
        "Traceback\nImportError: libnuma.so.1: cannot open shared object file\nNo module named 'common_ops'"
    )
    result = CheckResult(name="import sgl_kernel", passed=False, seconds=1.0, seen=seen)
    shown = table([result])[0]
    assert "libnuma.so.1" in shown and "common_ops" not in shown


def test_endings() -> None:
    """Exit codes and signals are said in words."""
    assert ending(3) == "exit code 3"
    assert ending(-9).startswith("SIGKILL (killed")
    assert ending(-200) == "signal 200"


def test_settings_are_no_failure() -> None:
    """SGLang prints all its settings at the start; their names alone mean nothing."""
    line = "server_args=ServerArgs(model_path='/m', warmups=None, watchdog_timeout=300, failed=1)"
    assert explain([line]) is None


@pytest.mark.parametrize(
    "line",
    [
        "RuntimeError: Rank 0 scheduler died during initialization (exit code: -9).",
        "Subprocess scheduler_0 (pid=2437) crashed with exit code -9. Triggering SIGQUIT",
    ],
)
def test_a_killed_rank(line: str) -> None:
    """As SGLang 0.5.17 says it when a rank is killed while it loads, and while it serves."""
    known = explain([line])
    assert known is not None and "a rank was killed" in known.cause
