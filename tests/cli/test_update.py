"""An installation updated by another bundle, and brought back; killed in between, it is one of the two."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from bundler.generations import GENERATIONS, RECORD
from bundler.installation import Installation
from tests.cli.conftest import PROJECT, run_bundler

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Bundler

NATIVE = ("--installer", "native")
SHARD = "weights/tiny-glm4-moe/model-00001-of-00004.safetensors"
OTHER_SHARD = "weights/tiny-glm4-moe/model-00002-of-00004.safetensors"
KILLS = int(os.environ.get("KILLS", "3"))
"""How many updates and rollbacks are killed; KILLS=200 makes it a long run."""


@pytest.fixture
def installed(packed: Path, tmp_path: Path) -> Path:
    """Return an installation of the older bundle."""
    done = run_bundler("unpack", packed, tmp_path / "glm", *NATIVE)
    assert done.returncode == 0, done.stderr
    return tmp_path / "glm"


def imports(installation: Path) -> str:
    """Import a module with the environment that counts, by the script that activates it; return its file."""
    script = (
        f". {installation}/bin/activate-default.sh && python -c 'import msgspec; print(msgspec.__file__)'"
    )
    done = subprocess.run(
        ["bash", "-c", script],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_there_and_back(bundler: Bundler, newer: Path, installed: Path) -> None:
    before = {name: (installed / name).stat() for name in (SHARD, OTHER_SHARD)}
    assert imports(installed).startswith(f"{installed}/.pixi/")
    dry = bundler("unpack", newer, installed, "--dry-run")
    assert dry.returncode == 0 and not (installed / GENERATIONS).exists()
    done = bundler("unpack", newer, installed, *NATIVE)
    assert done.returncode == 0, done.stderr
    assert "generation 2 is made beside 1" in done.stderr and "generation 2 counts now" in done.stderr
    second = installed / GENERATIONS / "2"
    assert Installation(installed).root == second
    assert (second / OTHER_SHARD).stat().st_ino == before[OTHER_SHARD].st_ino, "what is equal is linked"
    assert (second / SHARD).read_bytes() != (installed / SHARD).read_bytes()
    assert (installed / SHARD).stat().st_mtime_ns == before[SHARD].st_mtime_ns
    assert imports(installed).startswith(f"{second}/.pixi/")
    assert bundler("verify", "--deep", installed).returncode == 0
    assert json.loads(bundler("inspect", "--json", installed).stdout)["installations"][0]["root"] == str(
        second
    )
    told = json.loads(bundler("history", "-C", installed, "--json").stdout)
    assert [(one["number"], one["current"]) for one in told["generations"]] == [(1, False), (2, True)]
    assert told["steps"][0]["bundle"] == "newer" and told["steps"][0]["signed"] == "not signed"

    back = bundler("rollback", "-C", installed)
    assert back.returncode == 0 and "generation 1 counts now" in back.stdout
    assert Installation(installed).root == installed and imports(installed).startswith(f"{installed}/.pixi/")
    assert bundler("verify", "--deep", installed).returncode == 0
    assert bundler("rollback", "-C", installed, "--to", "7").returncode == 3
    forth = bundler("rollback", "-C", installed, "--to", "2", "--json")
    assert json.loads(forth.stdout)["generation"] == 2
    assert forth.returncode == 0 and Installation(installed).root == second
    shown = bundler("history", "-C", installed).stdout
    assert "* 2: newer" in shown and shown.count("rollback to generation") == 2


def test_what_is_not_kept_goes(bundler: Bundler, packed: Path, newer: Path, installed: Path) -> None:
    """The last generation alone stays; back to the older content is an update as well."""
    done = bundler("unpack", newer, installed, *NATIVE, "--keep", "0")
    assert done.returncode == 0 and "generation 1 is removed" in done.stderr
    assert sorted(child.name for child in installed.iterdir()) == [".bundler", "bin"]
    assert bundler("verify", "--deep", installed).returncode == 0
    assert bundler("rollback", "-C", installed).returncode == 3
    done = bundler("unpack", packed, installed, *NATIVE)
    assert done.returncode == 0, done.stderr
    assert Installation(installed).root == installed / GENERATIONS / "3"
    assert bundler("verify", "--deep", installed).returncode == 0


def test_what_the_bundle_does_not_name_is_carried_on(
    bundler: Bundler, packed: Path, newer: Path, installed: Path, tmp_path: Path
) -> None:
    """A second model, from a bundle of its own, is in the new generation as well."""
    other = shutil.copytree(packed.parents[1] / "tiny-glm4-moe", tmp_path / "other")
    assert bundler("pack", "--model", other, "-o", tmp_path / "disk").returncode == 0
    assert bundler("unpack", tmp_path / "disk" / "other", installed).returncode == 0
    assert not (installed / RECORD).exists(), "adding a model is no update"
    assert bundler("unpack", newer, installed, *NATIVE).returncode == 0
    found = Installation(installed)
    assert {*found.models} == {"other", "tiny-glm4-moe"} and {*found.environments} == {"default"}
    shard = "weights/other/" + SHARD.rpartition("/")[2]
    assert (found.root / shard).stat().st_nlink > 1
    assert bundler("verify", "--deep", installed).returncode == 0


def test_unpacked_only_it_does_not_count(bundler: Bundler, newer: Path, installed: Path) -> None:
    done = bundler("unpack", newer, installed, "--no-install")
    assert done.returncode == 0 and "what counted before counts still" in done.stderr
    assert Installation(installed).root == installed
    assert bundler("unpack", newer, installed, *NATIVE).returncode == 0
    assert Installation(installed).root == installed / GENERATIONS / "2"


def test_a_donor_that_was_changed_gives_nothing(bundler: Bundler, newer: Path, installed: Path) -> None:
    """A file that was altered since it was unpacked isn't taken over: the bundle's own is written."""
    with (installed / OTHER_SHARD).open("r+b") as file:
        file.write(b"altered!")
    assert bundler("unpack", newer, installed, *NATIVE).returncode == 0
    assert bundler("verify", "--deep", installed).returncode == 0


def test_killed_at_any_moment_it_is_one_of_the_two(
    packed: Path, newer: Path, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    home = tmp_path / "glm"
    assert run_bundler("unpack", packed, home, *NATIVE).returncode == 0
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    bundles = [newer, packed]
    print(f"seed {seed}")
    killed = {"unpack": 0, "rollback": 0}
    number = 0
    while sum(killed.values()) < KILLS:
        number += 1
        # A rollback needs two generations; to ask for one where there is one alone is refused, and no harm.
        words, longest = (
            (("rollback", "-C", str(home)), 0.8)
            if number % 3 == 2
            else (("unpack", str(bundles[chance.randrange(2)]), str(home), *NATIVE), 5.0)
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "bundler", *words],
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(chance.uniform(0.1, longest))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            killed[words[0]] += 1
        process.wait()
        found = Installation(home)
        assert run_bundler("verify", "--deep", home).returncode == 0, f"seed {seed}, kill {number}"
        assert {one.name for one in found.receipt.environments} == {"default"}, f"seed {seed}, kill {number}"
        assert imports(home).startswith(f"{found.root}/.pixi/")
    print(f"seed {seed}: killed {killed}, {number} were started")


def test_a_delta_makes_what_the_whole_makes(
    bundler: Bundler, packed: Path, newer: Path, installed: Path, tmp_path: Path
) -> None:
    """It holds what changed; unpacked where its base is, each byte is the whole bundle's."""
    made = newer.parents[1]
    words = ("-C", made / "workspace", "--env", "default", "--model", made / "tiny-glm4-moe", "--no-rehearse")
    done = bundler("pack", *words, "-o", tmp_path, "--name", "delta", "--since", packed)
    assert done.returncode == 0, done.stderr
    delta = tmp_path / "delta"
    size, whole = (sum(path.stat().st_size for path in one.glob("data-*")) for one in (delta, newer))
    assert size < whole / 2
    assert "A delta: the files that it doesn't hold are those of" in (delta / "README.txt").read_text()
    assert bundler("verify", delta).returncode == 0 and bundler("verify", "--deep", delta).returncode == 0

    alone = bundler("unpack", delta, tmp_path / "alone", *NATIVE)
    assert alone.returncode == 6 and "of its base tiny-glm4-moe-demo aren't here" in alone.stderr
    assert not (tmp_path / "alone").exists()

    assert bundler("unpack", delta, installed, *NATIVE).returncode == 0
    assert bundler("unpack", newer, tmp_path / "whole", *NATIVE).returncode == 0
    updated, fresh = Installation(installed), Installation(tmp_path / "whole")
    assert {path: entry.sha256 for path, entry in updated.entries.items()} == {
        path: entry.sha256 for path, entry in fresh.entries.items()
    }
    assert bundler("verify", "--deep", installed).returncode == 0
    for path, entry in fresh.entries.items():
        if entry.kind == "file":
            assert (updated.root / path).read_bytes() == (fresh.root / path).read_bytes()

    nothing = bundler("unpack", delta, tmp_path / "beside", *NATIVE, "--from", made / "workspace")
    assert nothing.returncode == 3 and "no installation, and " in nothing.stderr
    for source in (installed, packed):
        beside = bundler("unpack", delta, tmp_path / f"beside-{source.name}", *NATIVE, "--from", source)
        assert beside.returncode == 0, beside.stderr
        assert bundler("verify", "--deep", tmp_path / f"beside-{source.name}").returncode == 0


def test_deltas_are_a_chain(bundler: Bundler, packed: Path, installed: Path, tmp_path: Path) -> None:
    """A delta is a base as well, as its manifest names all files. With one left out the next is refused."""
    model = shutil.copytree(packed.parents[1] / "tiny-glm4-moe", tmp_path / "tiny-glm4-moe")
    base = packed / "manifest.json"
    for number in (1, 2):
        (model / f"note{number}.txt").write_text(f"note {number}")
        done = bundler("pack", "--model", model, "-o", tmp_path, "--name", f"delta{number}", "--since", base)
        assert done.returncode == 0, done.stderr
        base = tmp_path / f"delta{number}"
    refused = bundler("unpack", tmp_path / "delta2", installed, *NATIVE)
    assert refused.returncode == 6 and "note1.txt" in refused.stderr
    for number in (1, 2):
        assert bundler("unpack", tmp_path / f"delta{number}", installed, *NATIVE).returncode == 0
    found = Installation(installed)
    assert [(found.root / f"weights/tiny-glm4-moe/note{n}.txt").read_text() for n in (1, 2)] == [
        "note 1",
        "note 2",
    ]
    assert bundler("verify", "--deep", installed).returncode == 0


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("lib/python3*/site-packages/msgspec/__init__.py", "differs from its sha256"),
        ("lib/python3*/json/decoder.py", "differs from its sha256"),
        ("bin/python3.*", "differs from its sha256"),
        ("lib/python3*/site-packages/msgspec-*.dist-info/RECORD", "differs from its sha256"),
        ("conda-meta/python-*.json", "differs from its sha256"),
    ],
)
def test_verify_reads_what_was_installed(bundler: Bundler, installed: Path, pattern: str, said: str) -> None:
    """By the installers' own records: a byte of a module, of conda's Python, of a record itself."""
    assert bundler("verify", "--deep", installed).returncode == 0
    (place,) = (installed / ".pixi/envs/default").glob(pattern)
    data = bytearray(place.read_bytes())
    data[len(data) // 2] ^= 0xFF
    place.unlink()
    place.write_bytes(data)
    damaged = bundler("verify", "--deep", installed)
    name = place.relative_to(installed).as_posix()
    assert damaged.returncode == 5 and f"{name} {said}" in damaged.stderr
    assert "of an environment delete its folder" in damaged.stderr
