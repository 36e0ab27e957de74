"""The order of the commands' steps, and what is refused before the work."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from bundler.common import durable
from bundler.common.progress import SILENT
from bundler.environment_check import CheckResult, CheckRun
from bundler.errors import DestinationError, InputError, PreflightError
from bundler.installation import ARTIFACTS, Installation, Receipt, SeenFile, write_receipt
from bundler.work import install, pack, plan, selection, unpack

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def refuse(problem: type[BaseException]) -> Callable[..., Any]:
    """Return a function that raises."""

    def raising(*_: object, **__: object) -> None:
        raise problem("refused")

    return raising


def test_each_new_folders_name_is_made_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(durable, "sync_folder", synced.append)
    assert durable.make_folder(tmp_path / "a" / "b")
    assert synced == [tmp_path, tmp_path / "a"]


def test_a_check_that_was_killed_after_its_last_part_broke_off() -> None:
    last = CheckResult(name="all-reduce", passed=True, seconds=1.0, seen="")
    assert CheckRun([last], "all-reduce", -11, []).broke_off
    assert not CheckRun([last], "all-reduce", 0, []).broke_off


def test_the_receipt_forgets_the_store_before_it_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in between, the installation isn't taken for a damaged one."""
    (tmp_path / ARTIFACTS).mkdir(parents=True)
    write_receipt(tmp_path, Receipt(files=(SeenFile(f"{ARTIFACTS}/h/x", 1, 1, "0" * 64),)))
    monkeypatch.setattr("bundler.work.install.shutil.rmtree", refuse(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        install.remove_store(Installation(tmp_path), SILENT)
    assert not Installation(tmp_path).receipt.files


def test_bundle_and_place_are_judged_before_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bundler.archive.survey.check_place", refuse(DestinationError))
    monkeypatch.setattr(unpack, "_preflight", lambda *_: pytest.fail("tried by writing"))
    with pytest.raises(DestinationError):
        unpack.check(SimpleNamespace(), tmp_path, unpack.UnpackOptions(reporter=SILENT))  # type: ignore[arg-type]


def test_a_place_that_cannot_be_written_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    options = pack.PackOptions(volume_size=2**30, jobs=1, reporter=SILENT)
    chosen: Any = SimpleNamespace(models=())
    with pytest.raises(DestinationError, match="can't be written to"):
        pack.check_choices(chosen, options, [tmp_path / "bundle"])


def test_too_little_space_is_refused() -> None:
    tight = SimpleNamespace(path="/disk", purposes=("the store",), needed=2, free=1, enough=False)
    with pytest.raises(PreflightError, match="the store take 2 B or more, 1 B are free"):
        plan.check_space(SimpleNamespace(space=(tight,)))  # type: ignore[arg-type]


def test_bundlers_own_environment_must_be_carriable_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = SimpleNamespace(environments={}, check_carriable=lambda *_, **__: None)
    own = SimpleNamespace(check_carriable=refuse(InputError))
    monkeypatch.setattr(selection.Workspace, "load", lambda *_: here)
    monkeypatch.setattr("bundler.workspace.required_environments", lambda *_: ())
    monkeypatch.setattr("bundler.workspace.own_workspace", lambda _: own)
    with pytest.raises(InputError):
        selection.select(tmp_path, ["cu128"], [])
