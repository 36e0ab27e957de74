"""The demo itself, as ``make demo`` runs it, and what it leaves."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import shared
from tests.demo.shell import Shell, StepError

pytestmark = pytest.mark.xdist_group("demo")
"""One process runs it, and none waits for it meanwhile."""
PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Run it once for all workers; return its folder and what it printed."""

    def make(base: Path) -> tuple[Path, str]:
        folder = base / "a demo"
        command = [sys.executable, "-m", "tests.demo", "--dir", str(folder)]
        answer = subprocess.run(
            command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        assert answer.returncode == 0, answer.stdout
        return folder, answer.stdout

    return shared(tmp_path_factory, "demo", make)


def test_it_ends_with_an_installation_that_imports(demo: tuple[Path, str]) -> None:
    folder, printed = demo
    receipt = json.loads((folder / "installed" / ".bundler" / "receipt.json").read_text())
    assert [one["name"] for one in receipt["environments"]] == ["default"]
    python = folder / "installed" / ".pixi" / "envs" / "default" / "bin" / "python"
    words = "import msgspec, markupsafe; print(msgspec.__file__)"
    answer = subprocess.run([python, "-c", words], capture_output=True, text=True, check=True)
    assert answer.stdout.startswith(str(python.parent.parent))
    assert f"from {python.parent.parent}" in printed
    assert "-m sglang.launch_server" in printed


def test_the_bundle_stays_and_stock_tools_open_it(demo: tuple[Path, str], tmp_path: Path) -> None:
    if shutil.which("zstd") is None:
        pytest.skip("no zstd here")
    bundle = demo[0] / "bundles" / "tiny-glm4-moe-demo"
    script = 'sha256sum --quiet -c SHA256SUMS && cat data-*.tar.zst | zstd -d | tar x -C "$1"'
    subprocess.run(["sh", "-ec", script, "sh", str(tmp_path)], cwd=bundle, check=True)
    by_hand = {path.relative_to(tmp_path): path for path in tmp_path.rglob("*") if path.is_file()}
    assert Path("pixi.lock") in by_hand
    for inside, path in by_hand.items():
        assert (demo[0] / "installed" / inside).read_bytes() == path.read_bytes()


def test_it_says_what_lies_where(demo: tuple[Path, str]) -> None:
    folder, printed = demo
    summary = printed.split("what lies where")[1]
    for name in ("workspace", "tiny-glm4-moe", "bundles/tiny-glm4-moe-demo", "bundles/next", "second-disk"):
        assert str(folder / name) in summary
    for name in ("installed", "from-nothing", "transfer-sheet.html"):
        assert str(folder / name) in summary


def test_what_it_shows_besides(demo: tuple[Path, str]) -> None:
    """A bit that was flipped is mended, a kill mended by the same command, an update taken back."""
    folder, printed = demo
    steps = {part.partition("\n")[0]: part for part in printed.split("\n== ")}
    assert "error: " in steps["a disk flips a bit: found, and mended"]
    bundle = folder / "bundles" / "tiny-glm4-moe-demo"
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=bundle, check=True)
    killed = steps["a kill amid the work: the same command goes on"]
    assert "SIGKILL: exit code -9" in killed and not (folder / "killed").exists()
    assert "error: " in steps["whose bundle it is: a signature"]
    assert (bundle / "SHA256SUMS.sig").is_file()
    assert "generation 1 counts now" in steps["months later: one shard changed, and back again"]
    assert "<html" in (folder / "transfer-sheet.html").read_text()


def test_a_failing_command_ends_it(capfd: pytest.CaptureFixture[str]) -> None:
    shell = Shell()
    with pytest.raises(StepError, match=r"exit code 3:\n.*sh -c 'exit 3'"):
        shell.run("sh", "-c", "exit 3")
    assert shell.run("sh", "-c", "exit 3", allowed=(3,)) == 3
    with pytest.raises(StepError, match="No such file"):
        shell.run("/nowhere/at all")
    assert "$ '/nowhere/at all'" in capfd.readouterr().out


def test_a_command_is_cut_off(capfd: pytest.CaptureFixture[str]) -> None:
    script = "import os; print(sorted(os.listdir('/sys/class/net')))"
    Shell().cut_off(sys.executable, "-c", script)
    printed = capfd.readouterr().out
    # Where namespaces are forbidden the demo says so, and doesn't pretend.
    assert "unshare" in printed or "bwrap" in printed or "can't be cut" in printed


def test_without_an_index_it_says_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.demo.run import Demo, run_demo

    def unreachable(folder: Path, **options: object) -> None:
        raise RuntimeError("uv pip compile failed: no route to host")

    monkeypatch.setattr("tests.support.workspace.make_workspace", unreachable)
    assert run_demo(Demo(tmp_path / "demo", None, ())) == 1
    said = capsys.readouterr().err
    assert "no route to host" in said and "PIP_INDEX_URL" in said
