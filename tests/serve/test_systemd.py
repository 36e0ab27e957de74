"""Units, judged by systemd itself where it is there."""

import shutil
import subprocess
from pathlib import Path

import pytest

from bundler.errors import UsageError
from bundler.serve.launch import Wishes
from bundler.serve.systemd import unit, unit_name

from .conftest import Bench
from .test_launch import launch

BUNDLER = ["/opt/glm/bin/bundler"]


def test_words() -> None:
    """The unit serves, waits until it is ready, restarts, and quotes what systemd would take apart."""
    text = unit(launch(Wishes(extra=("--chat-template", "a b%c$d.jinja"))), BUNDLER, user="glm")
    assert "ExecStart=/opt/glm/bin/bundler serve --model GLM-4.7 --env cu128 --port 30000" in text
    assert '-- --chat-template "a b%%c$$d.jinja"' in text
    assert "ExecStartPost=/opt/glm/bin/bundler status --wait 3600 --port 30000 --node-rank 0" in text
    assert "Restart=on-failure" in text and "User=glm" in text and "TimeoutStartSec=3720" in text


def test_what_the_user_wished_is_in_the_unit() -> None:
    """Each option of the launch is given again, and none that wasn't given."""
    more = {"keep_env": ("PIP_X", "LD_Y"), "allow_launch": ("load-format",)}
    wishes = Wishes(tp_size=4, host="127.0.0.1", key_file=Path("/etc/key"), **more)
    words = "--tp-size 4 --host 127.0.0.1 --api-key-file /etc/key --keep-env PIP_X --keep-env LD_Y"
    words += " --allow-launch load-format"
    assert f"--port 30000 {words} --timeout 60 --no-log\n" in unit(launch(wishes), BUNDLER, start_seconds=60)
    assert "--port 30000 --timeout 60 --no-log\n" in unit(launch(), BUNDLER, start_seconds=60)
    elsewhere = unit(launch(environment=None, python=Path("/usr/bin/python3"), probed=True), BUNDLER)
    assert "serve --model GLM-4.7 --port 30000 --python /usr/bin/python3 --timeout" in elsewhere


def test_one_for_each_node() -> None:
    """Each node has a unit of its own with its rank."""
    two = launch(Wishes(nnodes=2, dist_init_addr="127.0.0.1:50000"))
    assert [unit_name(two, rank) for rank in (0, 1)] == [
        "bundler-glm-4.7-rank0.service",
        "bundler-glm-4.7-rank1.service",
    ]
    text = unit(two, BUNDLER, 1)
    assert "--dist-init-addr 127.0.0.1:50000 --nnodes 2 --node-rank 1" in text
    assert "node rank 1 of 2" in text and "/run/server-30000-rank1.log" in text


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")
def test_systemd_accepts_them(bench: Bench, tmp_path: Path) -> None:
    """``systemd-analyze verify`` has nothing to say of the units that the command writes."""
    done = bench.run(
        "systemd", "--python", bench.python, "-o", str(tmp_path / "units"), "--nnodes", "2",
        "--dist-init-addr", "127.0.0.1:50000", "--", "--max-running-requests", "8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    units = [Path(line) for line in done.stdout.splitlines()]
    assert len(units) == 2
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False
    )
    complaints = [line for line in verified.stderr.splitlines() if "bundler-tiny" in line]
    assert verified.returncode == 0 and complaints == [], verified.stderr


def units(bench: Bench, folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return bench.run("systemd", "--python", bench.python, "-o", str(folder), *words)


def test_what_a_unit_names_is_checked(bench: Bench, tmp_path: Path) -> None:
    """A user that isn't there, a key that it can't read, that others can, or that isn't there are refused."""
    key = tmp_path / "key"
    folder = tmp_path / "units"
    key.write_text("secret\n")
    for mode, words, said in (
        (0o600, ("--user", "nobody-at-all"), "there is no user 'nobody-at-all'"),
        (0o600, ("--user", "nobody", "--api-key-file", str(key)), "user nobody can't read the API key"),
        (0o644, ("--api-key-file", str(key)), "others can read the API key"),
        (0o600, ("--api-key-file", str(tmp_path / "none")), "can't read the API key"),
    ):
        key.chmod(mode)
        done = units(bench, folder, *words)
        assert done.returncode == UsageError.exit_code and said in done.stderr, done.stderr
        assert not folder.exists()


def test_a_folder_that_the_user_cant_enter(bench: Bench, tmp_path: Path) -> None:
    """The unit would end before the server begins."""
    bench.root.chmod(0o700)
    done = units(bench, tmp_path / "units", "--user", "nobody")
    assert done.returncode == UsageError.exit_code
    assert "user nobody can't enter the installation's folder" in done.stderr


def test_two_ports_are_two_units_and_what_is_next_is_said(bench: Bench, tmp_path: Path) -> None:
    """One doesn't take the other's place, an older one goes with a word."""
    folder = tmp_path / "units"
    first = units(bench, folder, "--port", "30000")
    assert first.stderr.splitlines()[0] == f"installation: {bench.root}"
    second = units(bench, folder, "--port", "30001")
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert sorted(path.name for path in folder.iterdir()) == [
        "bundler-tiny-30001.service",
        "bundler-tiny.service",
    ]
    assert "systemctl enable --now bundler-tiny-30001.service" in second.stderr
    assert f"cp {folder}/bundler-tiny.service /etc/systemd/system" in first.stderr
    assert "replaced" not in units(bench, folder, "--port", "30000").stderr
    changed = units(bench, folder, "--port", "30000", "--tp-size", "1")
    assert f"replaced an older unit: {folder}/bundler-tiny.service" in changed.stderr
