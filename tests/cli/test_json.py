"""``--json``: one object from each command, whatever becomes of it, as docs/JSON.md has it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from bundler.cli.main import MODULES
from bundler.cli.output import SCHEMA
from tests.cli.conftest import PROJECT, run_bundler
from tests.serve.conftest import Bench, bench
from tests.support.ssh_keys import make_key, needs_ssh_keygen

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Bundler

__all__ = ["bench"]
HEAD = ("schema", "command", "exit_code", "error")
ERROR = {"code", "what", "where", "fix", "findings"}
DOCUMENT = (PROJECT / "docs" / "JSON.md").read_text(encoding="utf-8")


def documented() -> dict[str, set[str]]:
    """Return the keys that the document's table names for each command; those in brackets may be absent."""
    found: dict[str, set[str]] = {}
    for names, keys in re.findall(r"^\| (`[^|]*) \| ([^|]*) \|", DOCUMENT, re.MULTILINE):
        for name in re.findall(r"`(\w+)`", names):
            found.setdefault(name, set()).update(re.findall(r"`(\w+)`", keys))
    return found


KEYS = documented()


def rows(value: Any) -> list[Any]:
    """Return the lists that stand directly in a list: rows that only their order explains."""
    if isinstance(value, dict):
        return [row for one in value.values() for row in rows(one)]
    if isinstance(value, list):
        return [one for one in value if isinstance(one, list)] + [row for one in value for row in rows(one)]
    return []


@dataclass
class Walk:
    """Commands, each called with ``--json``, and the keys that they answered."""

    seen: dict[str, set[str]] = field(default_factory=dict)

    def check(self, name: str, done: subprocess.CompletedProcess[str], code: int = 0) -> dict[str, Any]:
        """Check an answer's form, and return it."""
        assert done.returncode == code, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        assert tuple(answer)[:4] == HEAD
        assert (answer["schema"], answer["command"], answer["exit_code"]) == (SCHEMA, name, code)
        if answer["error"] is not None:
            assert set(answer["error"]) == ERROR and answer["error"]["code"] == code
            assert answer["error"]["what"] in done.stderr, "people are told, too"
        assert rows(answer) == []
        assert set(answer) - {*HEAD} <= KEYS[name]
        self.seen.setdefault(name, set()).update(set(answer) - {*HEAD})
        return answer

    def run(self, name: str, *words: object, code: int = 0) -> dict[str, Any]:
        """Run a command and check its answer."""
        return self.check(name, run_bundler(name, *words, "--json"), code)


@needs_ssh_keygen
def test_every_command_answers_in_the_one_form(
    packed: Path, newer: Path, tmp_path: Path, bench: Bench
) -> None:
    walk = Walk()
    online(walk, packed, tmp_path)
    either(walk, packed, newer, tmp_path)
    installed(walk, packed, tmp_path)
    serving(walk, bench)
    assert set(walk.seen) == set(MODULES) == set(KEYS)
    assert walk.seen == KEYS, "each key of the document was seen"


def online(walk: Walk, packed: Path, tmp_path: Path) -> None:
    workspace, model = packed.parents[1] / "workspace", packed.parents[1] / "tiny-glm4-moe"
    choice = ("-C", workspace, "--env", "default", "--model", model)
    assert walk.run("plan", *choice)["bundle"].keys() == {"least", "most"}
    fetched = walk.run("fetch", *choice)
    assert fetched["artifacts"]["files"] == 0 and fetched["models"][0]["name"] == "tiny-glm4-moe"
    assert walk.run("pack", *choice, "--dry-run")["plan"]["models"]
    rehearsed = walk.run("rehearse", "-C", workspace, "--env", "default", "--installer", "native")
    assert rehearsed["rehearsal"]["status"] == "passed"
    assert "UV_CACHE_DIR" in walk.run("env", "-C", tmp_path)["variables"]
    assert walk.run("clean", "-C", workspace, "--dry-run")["dry_run"] is True
    assert "GLM-4.7" in {one["name"] for one in walk.run("models")["models"]}
    assert "_BUNDLER_COMPLETE" in walk.run("completion", "fish")["script"]
    done = walk.run("pack", "--model", model, "--parity", "1", "-o", tmp_path / "bundles")
    assert done["rehearsal"]["status"] == "not rehearsed" and len(done["sums_sha256"]) == 64
    assert [set(one) for one in done["volumes"]] == [{"name", "size", "sha256", "frames"}]


def either(walk: Walk, packed: Path, newer: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundles" / "tiny-glm4-moe"
    signed = walk.run("sign", bundle, "--key", make_key(tmp_path / "key").path)
    (tmp_path / "disk").mkdir()
    copied = walk.run("copy", bundle, tmp_path / "disk")
    assert copied["disks"][0]["volumes"][0].keys() == {"name", "size", "sha256"}
    verified = walk.run("verify", bundle)["subjects"]
    assert [(one["ok"], one["provenance"]["sums_sha256"]) for one in verified] == [
        (True, signed["sums_sha256"])
    ]
    assert walk.run("repair", bundle)["damaged"] == []
    inspected = walk.run("inspect", packed)
    assert inspected["bundles"][0]["environments"][0]["packages"][0]["name"]
    assert walk.run("report", packed, "-o", tmp_path / "sheet.html")["kind"] == "sheet"
    assert walk.run("licenses", packed)["packages"]
    assert walk.run("diff", packed, newer)["delta"]["files"]
    shared(walk, "share", bundle)
    shared(walk, "unpack", bundle, tmp_path / "shared", "--share")


def shared(walk: Walk, *words: object) -> None:
    """Its answer comes before its end, which is ^C."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bundler", *map(str, words), "--port", "0", "--bind", "127.0.0.1", "--json"],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    text = ""
    while not text.endswith("\n}\n"):
        text += process.stdout.readline()
    process.send_signal(signal.SIGINT)
    rest, said = process.communicate(timeout=60)
    assert (rest, process.returncode) == ("", 130)
    answer = walk.check(str(words[0]), subprocess.CompletedProcess([], 0, text, said))
    assert answer["addresses"][0].startswith("http://127.0.0.1:")


def installed(walk: Walk, packed: Path, tmp_path: Path) -> None:
    home = tmp_path / "glm"
    walk.run("unpack", packed, home, "--dry-run")
    done = walk.run("unpack", packed, home, "--installer", "native")
    assert done["environments"][0]["name"] == "default" and done["next"].endswith("serve")
    inspected = walk.run("inspect", home)
    assert inspected["installations"][0]["root"] == str(home)
    assert walk.run("install", home, "--installer", "native")["environments"][0]["prefix"]
    assert [one["current"] for one in walk.run("history", "-C", home)["generations"]] == [True]
    assert walk.run("rollback", "-C", home, code=3)["error"]["what"]
    assert {one["part"] for one in walk.run("du", home)["parts"]} > {"model tiny-glm4-moe"}
    assert walk.run("remove", "tiny-glm4-moe", "-C", home)["names"] == ["tiny-glm4-moe"]
    assert walk.run("uninstall", home, "--yes")["removed"][0] == str(home)
    # There is nothing to go back to here; tests/cli/test_update.py goes back.
    walk.seen["rollback"] = KEYS["rollback"]


def serving(walk: Walk, bench: Bench) -> None:
    def run(name: str, *words: str, code: int = 0) -> dict[str, Any]:
        return walk.check(name, bench.run(name, *words, "--json", timeout=120), code)

    python = ("--python", bench.python)
    found = run("doctor", *python, "--port", str(bench.port), code=15)
    assert {one["level"] for one in found["findings"]} == {"good", "warn"} and found["level"] == "warn"
    assert run("doctor", "--describe")["host"]["hostname"]
    assert run("check", *python, code=12)["checks"][0].keys() >= {"name", "passed"}
    assert run("serve", *bench.serve()[1:], "--dry-run")["argv"][1:3] == ["-m", "sglang.launch_server"]
    assert "[Unit]\n" in run("systemd", *python)["units"][0]["text"]
    assert run("serve", *bench.serve()[1:], "--detach")["server"]["port"] == bench.port
    (server,) = run("status")["servers"]
    assert server["health"] == "ready" and all(rank.keys() == {"pid", "title"} for rank in server["ranks"])
    assert run("logs", "-n", "3")["lines"]
    assert run("smoke")["rounds"][0]["results"]
    assert run("stop")["stopped"][0]["port"] == bench.port
    assert run("status", code=14)["error"]["code"] == 14


@pytest.mark.parametrize("name", sorted(MODULES))
def test_words_that_are_off_are_an_object_too(bundler: Bundler, name: str) -> None:
    answer = Walk().check(name, bundler(name, "--frobnicate", "--json"), 2)
    assert answer["error"]["what"].startswith("no such option '--frobnicate'")
    assert name in answer["error"]["fix"]


def test_what_is_wrong_before_a_command_is_known(bundler: Bundler) -> None:
    done = bundler("verfy", "--json")
    answer = json.loads(done.stdout)
    assert (answer["command"], answer["error"]["code"], done.returncode) == (None, 2, 2)


def test_what_stands_after_two_dashes_is_the_servers(bundler: Bundler) -> None:
    assert bundler("serve", "--", "--json").stdout == ""


def test_an_error_has_its_parts(bundler: Bundler, bundle: Path) -> None:
    volume = next(bundle.glob("data-*"))
    data = bytearray(volume.read_bytes())
    data[len(data) // 2] ^= 1
    volume.write_bytes(data)
    answer = Walk().check("verify", bundler("verify", bundle, "--json"), 5)
    assert volume.name in " ".join(answer["error"]["findings"])
    assert answer["error"]["fix"] and [one["ok"] for one in answer["subjects"]] == [False]


def test_a_defect_is_an_object_too(bundler: Bundler, tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("")
    answer = Walk().check("env", bundler("env", "-C", tmp_path / "blocked" / "x", "--json"), 9)
    assert answer["error"]["where"].startswith(str(tmp_path))


def test_two_answers_do_not_share_standard_output(bundler: Bundler, packed: Path) -> None:
    answer = Walk().check("report", bundler("report", packed, "-o", "-", "--json"), 2)
    assert answer["error"]["fix"] == "name a file: -o FILE"
    assert Walk().check("logs", bundler("logs", "--follow", "--json"), 2)


def test_the_document_names_the_version() -> None:
    assert f'"schema": {SCHEMA},' in DOCUMENT
