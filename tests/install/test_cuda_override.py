"""Which CUDA version installers take for the host's, where it has no GPU or another one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bundler.install.installer import KEPT_VARIABLES, cuda_override
from bundler.workspace import EnvironmentLock


def locked(*packages: str) -> EnvironmentLock:
    return EnvironmentLock("cu128", (), "linux-64", (), virtual_packages=packages)


@pytest.mark.parametrize(
    ("packages", "version"),
    [
        (("__glibc=2.28", "__cuda=12.8"), "12.8"),
        (("__cuda=12",), "12"),
    ],
)
def test_the_locks_platform_says_it(packages: tuple[str, ...], version: str) -> None:
    assert cuda_override([locked("__linux"), locked(*packages)], {}) == {"CONDA_OVERRIDE_CUDA": version}


def test_the_callers_word_goes_before() -> None:
    word = {"CONDA_OVERRIDE_CUDA": "11.8"}
    assert cuda_override([locked("__cuda=12.8")], word) == word
    assert "CONDA_OVERRIDE_CUDA" in KEPT_VARIABLES
    assert cuda_override([locked("__glibc=2.28")], {}) == {}


def test_the_records_say_it_where_the_platform_does_not() -> None:
    asked = replace(locked("__glibc=2.28"), least_cuda="12.4")
    assert cuda_override([asked], {}) == {"CONDA_OVERRIDE_CUDA": "12.4"}
