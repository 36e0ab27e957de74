"""A model whose manifest sets more of the server than a manifest may: from pack to serve."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli.test_messages import said

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Bundler

TOML = """
name = "hostile"
[source]
folder = "{model}"
[launch.flags]
tool-call-parser = "glm47"
load-format = "remote"
[[launch.variants]]
gpu-families = ["blackwell"]
env = {{ LD_PRELOAD = "/tmp/x.so" }}
"""
BOTH = ("--allow-launch", "load-format", "--allow-launch", "LD_PRELOAD")


@pytest.fixture
def manifest(tiny_model: Path, tmp_path: Path) -> Path:
    path = tmp_path / "hostile.toml"
    path.write_text(TOML.format(model=tiny_model))
    return path


def test_what_a_manifest_may_not_set_by_itself(bundler: Bundler, manifest: Path, tmp_path: Path) -> None:
    """Refused at pack, unpack and serve, shown by inspect, allowed by name, and said in the receipt."""
    words = ("pack", "--model", manifest, "-o", tmp_path / "out")
    said(
        bundler(*words), 3, "load-format = 'remote'", "LD_PRELOAD = '/tmp/x.so'", "--allow-launch LD_PRELOAD"
    )
    said(bundler(*words, *BOTH[:2]), 3, "LD_PRELOAD")
    assert not (tmp_path / "out").exists()
    assert bundler(*words, *BOTH).returncode == 0
    bundle = tmp_path / "out" / "hostile"

    shown = bundler("inspect", bundle)
    mark = "(not a manifest's to set by itself: only with --allow-launch)"
    assert f"served always: --load-format remote {mark}\n" in shown.stdout
    assert f"served on blackwell GPUs: LD_PRELOAD=/tmp/x.so {mark}\n" in shown.stdout
    assert "served always: --tool-call-parser glm47\n" in shown.stdout
    (record,) = json.loads(bundler("inspect", "--json", bundle).stdout)["bundles"]
    assert record["launch_unlisted"] == {"hostile": ["LD_PRELOAD", "load-format"]}

    for more in ((), ("--dry-run",), BOTH[:2]):
        said(bundler("unpack", *more, bundle, "to"), 3, "may not set by itself", "LD_PRELOAD = '/tmp/x.so'")
    assert not (tmp_path / "to").exists()
    assert bundler("unpack", *BOTH, bundle, "to").returncode == 0
    receipt = json.loads((tmp_path / "to/.bundler/receipt.json").read_text())
    assert receipt["bundles"][0]["allowed_launch"] == ["LD_PRELOAD", "load-format"]
    assert "by --allow-launch: LD_PRELOAD, load-format" in bundler("inspect", "to").stdout

    serve = ("serve", "--dry-run", "-C", "to", "--python", sys.executable)
    assert "--load-format remote" in bundler(*serve).stdout
    receipt["bundles"][0]["allowed_launch"] = []
    (tmp_path / "to/.bundler/receipt.json").write_text(json.dumps(receipt))
    said(bundler(*serve), 3, "may not set by itself")
    assert mark in bundler("inspect", "to").stdout
    assert "--load-format remote" in bundler(*serve, *BOTH).stdout
