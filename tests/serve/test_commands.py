"""The commands of the GPU host, as processes, and what they find."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from bundler.cli.smoke import _sized
from bundler.errors import (
    DoctorError,
    InputError,
    NotRunningError,
    UnknownNameError,
    UsageError,
    WarningsError,
)
from bundler.installation import find_installation
from bundler.manifest import Environment
from bundler.runtime.launchers import write_launchers
from bundler.work.serving import Choice

from .conftest import SPEC, Bench, free_port, gpu, make_installation


def levels(text: str) -> dict[str, str]:
    return {one["name"]: one["level"] for one in json.loads(text)["findings"]}


def test_doctor(bench: Bench) -> None:
    """Every group is looked at, the exit code tells good and warning from failure, and nothing is written."""
    before = {path: path.stat().st_mtime_ns for path in bench.root.rglob("*")}
    done = bench.run("doctor", "--python", bench.python, "--port", str(bench.port), "--json")
    found = levels(done.stdout)
    assert {
        "NVIDIA driver",
        "GPUs",
        "GPU memory",
        "/dev/shm",
        "libcuda.so.1",
        "C compiler",
        "port",
        "files",
    } <= set(found)
    assert "fail" not in found.values(), done.stdout
    assert done.returncode == (WarningsError.exit_code if "warn" in found.values() else 0), done.stderr
    assert {path: path.stat().st_mtime_ns for path in bench.root.rglob("*")} == before
    library = bench.tmp / "lib" / "libcuda.so.1"
    library.write_bytes(b"")
    failed = bench.run("doctor", "--python", bench.python)
    assert failed.returncode == DoctorError.exit_code and f"{library} is empty" in failed.stdout
    bench.gpus()
    failed = bench.run("doctor", "--python", bench.python)
    assert failed.returncode == DoctorError.exit_code and "FAIL GPUs" in failed.stdout


def test_doctor_finds_damaged_weights(bench: Bench) -> None:
    """A flipped bit is found by ``--deep`` alone, a truncated file at once; ``serve`` refuses it."""
    shard = bench.root / "weights/Tiny/model-00002-of-00002.safetensors"
    data, status = shard.read_bytes(), shard.stat()
    shard.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))
    words = ("doctor", "--python", bench.python, "--port", str(bench.port))
    assert bench.run(*words).returncode in (0, WarningsError.exit_code)
    deep = bench.run(*words, "--deep")
    assert deep.returncode == DoctorError.exit_code and "sha256 differs" in deep.stdout
    shard.write_bytes(data[:-1])
    refused = bench.run(*bench.serve("--detach"))
    assert refused.returncode == DoctorError.exit_code and "truncated" in refused.stderr


def test_described_host(bench: Bench, tmp_path: Path) -> None:
    """A host described on one machine is judged on another, against an installation and against a bundle."""
    bench.gpus(*(gpu(index) for index in range(2)))
    target = tmp_path / "target.json"
    target.write_text(bench.run("doctor", "--describe").stdout)
    bench.gpus()
    done = bench.run("doctor", "--python", bench.python, "--target", str(target), "--tp-size", "2", "--json")
    found = levels(done.stdout)
    assert found["GPUs"] == "good" and "C compiler" not in found
    manifest = next((bench.root / ".bundler/bundles").glob("*.json"))
    shutil.copy(manifest, tmp_path / "manifest.json")
    done = bench.run(
        "doctor", "--bundle", str(tmp_path), "--target", str(target), "--tp-size", "16", "--json"
    )
    assert done.returncode == DoctorError.exit_code
    assert levels(done.stdout)["GPUs"] == "fail"
    for option, noun, have in (("--env", "environment", "none"), ("--model", "model", "Tiny")):
        done = bench.run("doctor", "--bundle", str(tmp_path), "--target", str(target), option, "nope")
        assert done.returncode == UnknownNameError.exit_code
        assert f"no {noun} 'nope' in the bundle; there are: {have}" in done.stderr


def test_own_server_is_no_fault(bench: Bench) -> None:
    """Doctor doesn't hold the installation's own running server against its port."""
    assert bench.run(*bench.serve("--detach")).returncode == 0
    done = bench.run("doctor", "--python", bench.python, "--port", str(bench.port), "--json")
    assert levels(done.stdout)["port"] == "good"
    assert bench.run("stop", "--all").returncode == 0


def test_dry_run(bench: Bench) -> None:
    """The command is printed and nothing is started or written."""
    done = bench.run(*bench.serve("--dry-run", "--", "--log-level", "debug"))
    assert done.returncode == 0, done.stderr
    assert f"{bench.python} -m sglang.launch_server" in done.stdout
    assert "--served-model-name tiny-served" in done.stdout and "--log-level debug" in done.stdout
    assert not (bench.root / ".bundler/run").exists() and not (bench.root / ".bundler/cache").exists()


def test_dry_run_in_a_workspace(bench: Bench, tmp_path: Path) -> None:
    """In a workspace the command is shown as the team types it there."""
    source, workspace = Path(__file__).parents[2], tmp_path / "workspace"
    workspace.mkdir()
    for name in ("pixi.toml", "pixi.lock"):
        shutil.copy(source / name, workspace)
    done = bench.run(
        "serve", "-C", str(workspace), "--dry-run", "--model", "GLM-4.7", "--env", "cu128", "--tp-size", "8"
    )
    assert done.returncode == 0, done.stderr
    text = done.stdout
    project = workspace / "pixi.toml"
    there = f"pixi run --frozen --manifest-path {project} --environment cu128 python -m sglang.launch_server"
    assert there in text and f"--model-path {workspace}/weights/GLM-4.7" in text
    for words in (
        "--tool-call-parser glm47", "--reasoning-parser glm45", "--trust-remote-code",
        "--mem-fraction-static 0.9", "--served-model-name glm-4.7", "--tp-size 8", "--host 0.0.0.0",
        "--port 30000", "weights/GLM-4.7",
    ):  # fmt: skip
        assert words in text
    assert "SGLANG_IS_FLASHINFER_AVAILABLE=false" in text
    refused = bench.run("serve", "-C", str(workspace), "--model", "GLM-4.7")
    assert refused.returncode == UnknownNameError.exit_code


def test_target_in_a_workspace_before_anything_is_fetched(bench: Bench, tmp_path: Path) -> None:
    """A host described is compared with a model whose files aren't here yet, and an environment's lock."""
    source, workspace, target = Path(__file__).parents[2], tmp_path / "workspace", tmp_path / "target.json"
    workspace.mkdir()
    for name in ("pixi.toml", "pixi.lock"):
        shutil.copy(source / name, workspace)
    bench.gpus(*(gpu(index) for index in range(8)))
    target.write_text(bench.run("doctor", "--describe").stdout)
    words = ("doctor", "-C", str(workspace), "--target", str(target), "--json", "--env", "cu128", "--model")
    large = bench.run(*words, "GLM-4.7")
    assert levels(large.stdout)["GPU memory"] == "fail" and "pack GLM-4.7-FP8" in large.stdout
    assert levels(bench.run(*words, "GLM-4.7-FP8").stdout)["GPU memory"] == "good"
    image = levels(bench.run(*words, "Qwen2-VL-7B-Instruct").stdout)
    assert image["GPU memory"] == image["cuDNN"] == "good"
    other = bench.run(*words[:-2], "bundler", "--model", "GLM-4.7")
    assert "the environment bundler has no sglang" in other.stdout


def test_smoke_takes_the_teams_variables(bench: Bench, tmp_path: Path) -> None:
    """The run mode, the model's folder and the tp-size come from the variables of the team's script."""
    other = tmp_path / "other"
    shutil.copytree(bench.root / "weights/Tiny", other)
    bench.gpus(gpu(0), gpu(1))
    words = (
        "smoke",
        "--model",
        "tiny",
        "--python",
        bench.python,
        "--host",
        "127.0.0.1",
        "--port",
        str(bench.port),
    )
    done = bench.run(
        *words, "--json", SGLANG_RUN_MODE="both", SGLANG_MODEL_DIR=str(other), SGLANG_TP_SIZE_CU128="2",
        SGLANG_TP_SIZE_CU126="1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[0] == f"installation: {bench.root}"
    rounds = json.loads(done.stdout)["rounds"]
    assert len(rounds) == 2 and all(one["passed"] for each in rounds for one in each["results"])
    argv = bench.record()["argv"]
    assert argv[argv.index("--model-path") + 1] == str(other)
    assert argv[argv.index("--tp-size") + 1] == "2"
    assert bench.processes() == []
    assert bench.run(*words, SGLANG_RUN_MODE="cu130").returncode == UsageError.exit_code
    assert (
        bench.run(*words, SGLANG_RUN_MODE="cu128", SGLANG_TP_SIZE_CU128="two").returncode
        == UsageError.exit_code
    )


def test_smoke_asks_which_server(bench: Bench) -> None:
    """Of several servers none is asked in the others' stead."""
    other = str(free_port())
    assert bench.run(*bench.serve("--detach")).returncode == 0
    assert bench.run(*bench.serve("--detach"), "--port", other).returncode == 0
    done = bench.run("smoke")
    assert done.returncode == UsageError.exit_code
    assert f"Tiny on port {bench.port}" in done.stderr and f"Tiny on port {other}" in done.stderr
    assert f":{other}" in bench.run("smoke", "--port", other).stdout
    assert bench.run("stop", "--all").returncode == 0
    assert bench.processes() == []


@pytest.mark.parametrize(
    ("environment", "named", "size"),
    [
        (Environment(name="cu128", platform="linux-64"), None, 2),
        (Environment(name="default", aliases=("cu126",), platform="linux-64"), None, 1),
        (Environment(name="default", aliases=("cu126",), platform="linux-64"), "cu126", 1),
        (Environment(name="other", platform="linux-64"), None, None),
    ],
)
def test_tp_size_of_the_only_environment(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    environment: Environment,
    named: str | None,
    size: int | None,
) -> None:
    """The team's tp-size holds for an environment also where nobody has to name it."""
    root = make_installation(tmp_path / "installation", environments=(environment,))
    monkeypatch.setenv("SGLANG_TP_SIZE_CU126", "1")
    monkeypatch.setenv("SGLANG_TP_SIZE_CU128", "2")
    assert _sized(Choice(start=root, environment=named)).wishes.tp_size == size


def test_check_tells_what_is_missing(bench: Bench) -> None:
    """The environment is tried from inside, with the server's variables; each failure is named."""
    done = bench.run("check", "--python", bench.python, "--json", "--timeout", "50")
    assert done.returncode == DoctorError.exit_code
    results = {one["name"]: one for one in json.loads(done.stdout)["checks"]}
    assert results["import sglang"]["passed"]
    assert (
        not results["import torch"]["passed"] and "No module named 'torch'" in results["import torch"]["seen"]
    )
    assert "import torch" in done.stderr


def test_no_interpreter(bench: Bench) -> None:
    """An interpreter that isn't there, doesn't answer or lacks SGLang is said to."""
    assert bench.run("serve", "--python", "nowhere").returncode == InputError.exit_code
    broken = bench.tmp / "bin" / "broken"
    broken.write_text("#!/bin/sh\necho no; exit 3\n")
    broken.chmod(0o755)
    assert "doesn't run" in bench.run("serve", "--python", str(broken)).stderr
    shutil.rmtree(bench.tmp / "site" / "sglang-0.5.7.dist-info")
    refused = bench.run(*bench.serve())
    assert refused.returncode == DoctorError.exit_code and "has no SGLang" in refused.stderr
    none = bench.run("serve")
    assert none.returncode == InputError.exit_code and "--python" in none.stderr


def test_finding_the_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is named, then the launcher's own, then BUNDLER_HOME, then here, above, directly below."""
    for variable in ("BUNDLER_HOME", "BUNDLER_INSTALLATION"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownNameError, match="no installation here"):
        find_installation()
    one = make_installation(tmp_path / "place" / "one")
    assert find_installation(one).root == one
    assert find_installation(one / "weights" / SPEC.name).root == one
    assert find_installation(tmp_path / "place").root == one
    monkeypatch.chdir(tmp_path / "place")
    assert find_installation().root == one
    two = make_installation(tmp_path / "place" / "two")
    with pytest.raises(UnknownNameError) as raised:
        find_installation()
    assert len(raised.value.findings) == 2
    monkeypatch.chdir(one)
    assert find_installation().root == one
    monkeypatch.setenv("BUNDLER_HOME", str(two))
    assert find_installation().root == two, "the variable wins against what lies about"
    monkeypatch.setenv("BUNDLER_INSTALLATION", str(one))
    assert find_installation().root == one, "the launcher's own wins against the variable"
    assert find_installation(two).root == two, "and what is named against all"
    monkeypatch.setenv("BUNDLER_INSTALLATION", str(tmp_path / "gone"))
    with pytest.raises(UnknownNameError, match="BUNDLER_INSTALLATION doesn't name an installation"):
        find_installation()
    monkeypatch.delenv("BUNDLER_INSTALLATION")
    monkeypatch.setenv("BUNDLER_HOME", str(tmp_path / "none"))
    with pytest.raises(UnknownNameError, match="BUNDLER_HOME doesn't name an installation"):
        find_installation()
    (tmp_path / "half" / ".bundler").mkdir(parents=True)
    with pytest.raises(InputError, match="not a finished installation"):
        find_installation(tmp_path / "half")
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("BUNDLER_HOME", str(one))
    with pytest.raises(UnknownNameError):
        find_installation(tmp_path / "empty")


def test_a_launcher_means_its_own_installation(bench: Bench, tmp_path: Path) -> None:
    """``cd A; ../B/bin/bundler stop`` leaves A's server alone, and the first line says what is meant."""
    other = make_installation(tmp_path / "other")
    write_launchers(other)

    def call(*words: str, **env: str) -> "subprocess.CompletedProcess[str]":
        command = [other / "bin/bundler", *words]
        variables = bench.env | env
        return subprocess.run(
            command, cwd=bench.root, env=variables, capture_output=True, text=True, timeout=60
        )

    assert bench.run(*bench.serve("--detach")).returncode == 0
    stopped = call("stop")
    assert stopped.returncode == NotRunningError.exit_code
    assert stopped.stderr.splitlines()[0] == f"installation: {other}"
    assert call("stop", BUNDLER_HOME=str(bench.root)).returncode == NotRunningError.exit_code
    assert bench.run("status").returncode == 0
    named = call("stop", "-C", ".")
    assert named.returncode == 0 and named.stderr.splitlines()[0] == f"installation: {bench.root}"
    shown = bench.run(*bench.serve("--detach"), BUNDLER_HOME=str(other))
    assert shown.stderr.splitlines()[0] == f"installation: {other}"
    assert call("stop").returncode == 0


def test_an_installation_of_anothers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the installation can't be written, caches and state go to a folder of the user's own."""
    from bundler.serve.environment_checks import can_write, writable_folder

    root = make_installation(tmp_path / "i")
    assert writable_folder(root, ".bundler/cache") == root / ".bundler/cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    # Root may write anywhere, so that the kernel's answer is played.
    monkeypatch.setattr(os, "access", lambda path, mode: not Path(path).is_relative_to(root))
    own = writable_folder(root, ".bundler/cache")
    assert own.is_relative_to(tmp_path / "own" / "bundler") and own.name == "cache"
    assert own.parent.name.startswith("i-")
    assert "can't be written" in str(can_write(root / ".bundler/cache"))
    assert can_write(own) is None


def test_doctor_warns_of_a_server_open_to_all(bench: Bench, tmp_path: Path) -> None:
    """Every interface and no key is a warning; this host alone, or a key, is none."""
    words = ("doctor", "--python", bench.python, "--port", str(bench.port), "--json")
    assert levels(bench.run(*words).stdout)["access"] == "warn"
    assert levels(bench.run(*words, "--host", "127.0.0.1").stdout)["access"] == "good"
    assert levels(bench.run(*words, "--", "--api-key", "x").stdout)["access"] == "good"
    assert levels(bench.run(*words, "--api-key-file", str(tmp_path / "key")).stdout)["access"] == "good"


def test_no_empty_lines(bench: Bench) -> None:
    """No line of status and stop is empty; doctor warns of a server that is open to all."""
    assert bench.run(*bench.serve("--detach")).returncode == 0
    for words in (("status",), ("stop",), ("status",), ("stop",)):
        done = bench.run(*words)
        assert "" not in [line.strip() for line in (done.stdout + done.stderr).splitlines()], words
    done = bench.run("doctor", "--python", bench.python, "--host", "0.0.0.0", "--json")
    assert levels(done.stdout)["access"] == "warn"
