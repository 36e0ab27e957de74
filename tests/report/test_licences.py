"""What licences ask for, and the command that says it."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import pytest

from bundler.report.licences import understand
from tests.report.make import conda, make_bundle, model_of, wheel

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Bundler

OSI = "License :: OSI Approved :: "


@pytest.mark.parametrize(
    ("stated", "expression", "concerns"),
    [
        ("MIT", "MIT", ()),
        ("apache-2.0", "Apache-2.0", ()),
        ("Apache License, Version 2.0", "Apache-2.0", ()),
        ("MIT/Apache-2.0", "MIT OR Apache-2.0", ()),
        ("GPL-3.0-only", "GPL-3.0-only", ("copyleft",)),
        ("AGPL-3.0-or-later", "AGPL-3.0-or-later", ("copyleft",)),
        ("LGPL-2.1-or-later", "LGPL-2.1-or-later", ("weak copyleft",)),
        ("GPL-3.0-only WITH GCC-exception-3.1", "GPL-3.0-only WITH GCC-exception-3.1", ("weak copyleft",)),
        ("MIT AND GPL-2.0-only", "MIT AND GPL-2.0-only", ("copyleft",)),
        ("MIT OR GPL-2.0-only", "MIT OR GPL-2.0-only", ()),
        ("CC-BY-NC-4.0 OR LGPL-3.0-only", "CC-BY-NC-4.0 OR LGPL-3.0-only", ("weak copyleft",)),
        ("MPL-2.0 AND (MIT OR CC-BY-NC-4.0)", "MPL-2.0 AND (MIT OR CC-BY-NC-4.0)", ("weak copyleft",)),
        ("cc-by-nc-4.0", "CC-BY-NC-4.0", ("non-commercial",)),
        ("PolyForm-Noncommercial-1.0.0", "PolyForm-Noncommercial-1.0.0", ("non-commercial",)),
        ("LicenseRef-NVIDIA-End-User-License-Agreement", None, ("restricted",)),
        ("Proprietary", "NOASSERTION", ("restricted",)),
        ("llama3.1", "NOASSERTION", ("restricted",)),
        ("gemma", "NOASSERTION", ("restricted",)),
        ("odbl", "ODbL-1.0", ("copyleft",)),
        ("openmdw-1.0", "LicenseRef-OpenMDW-1.0", ()),
        ("LGPL-2.0-or-later WITH exceptions AND GPL-2.0-or-later", "NOASSERTION", ("copyleft",)),
        ("GNU Lesser General Public License v3", "NOASSERTION", ("weak copyleft",)),
        ("bigscience-openrail-m", "NOASSERTION", ("restricted",)),
        ("flux-1-dev-non-commercial-license", "NOASSERTION", ("non-commercial",)),
        ("other", "NOASSERTION", ("unknown",)),
        ("LicenseRef-Whatever", "LicenseRef-Whatever", ("unknown",)),
        ("MIT AND LicenseRef-Whatever", "MIT AND LicenseRef-Whatever", ("unknown",)),
        ("", "NOASSERTION", ("unknown",)),
        ("BSD", "NOASSERTION", ("unknown",)),
        ("MIT OR", "NOASSERTION", ("unknown",)),
        ("(" * 999, "NOASSERTION", ("unknown",)),
        ("MIT AND " * 100 + "MIT", None, ()),
        ("GNU General Public License\nVersion 3 " + "x" * 5000, "NOASSERTION", ("copyleft",)),
    ],
)
def test_what_a_licence_asks_for(stated: str, expression: str | None, concerns: tuple[str, ...]) -> None:
    found = understand(stated, "License")
    assert found.expression == (expression or stated)
    assert found.concerns == concerns


@pytest.mark.parametrize(
    ("stated", "classifiers", "expression", "concerns"),
    [
        ("", (OSI + "MIT License",), "MIT", ()),
        ("Copyright 2020 somebody\n\nPermission is", (OSI + "BSD License",), "LicenseRef-BSD", ()),
        ("", (OSI + "GNU General Public License v3 (GPLv3)",), "GPL-3.0-only", ("copyleft",)),
        ("Dual License", (OSI + "Apache Software License", OSI + "BSD License"), None, ()),
        ("MIT", (OSI + "GNU General Public License v3 (GPLv3)",), "MIT", ()),
        ("", ("License :: Other/Proprietary License",), "LicenseRef-Proprietary", ("restricted",)),
        ("", ("License :: Unheard Of",), "NOASSERTION", ("unknown",)),
    ],
)
def test_classifiers_are_the_fallback(
    stated: str, classifiers: tuple[str, ...], expression: str | None, concerns: tuple[str, ...]
) -> None:
    found = understand(stated, "License", classifiers)
    assert found.expression == (expression or "Apache-2.0 AND LicenseRef-BSD")
    assert found.concerns == concerns


def test_no_escape_sequence_reaches_the_terminal() -> None:
    assert understand("\x1b]0;owned\x07MIT-ish", "License").stated == "?]0;owned?MIT-ish"


def test_nor_does_one_of_a_name(bundler: Bundler, tmp_path: Path) -> None:
    """No check of the manifest looks at versions."""
    made = wheel("plain", "1", "License-Expression: MIT")
    odd = dataclasses.replace(made, version="1\x1b[2J")
    (one,) = make_bundle(tmp_path, [odd])
    (other,) = make_bundle(tmp_path, [made], name="other")
    for said in (bundler("licenses", one).stdout, bundler("diff", other, one).stdout):
        assert "1?[2J" in said and "\x1b" not in said


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    packages = [
        wheel("free", "1", "License-Expression: MIT"),
        wheel("viral", "2", "License: GPLv3"),
        conda("library", "3", {"license": "LGPL-2.1-or-later"}, {}),
        wheel("silent", "4"),
    ]
    (folder,) = make_bundle(tmp_path, packages, model=model_of(license="cc-by-nc-4.0"))
    return folder


def test_the_command_sorts_all_of_a_bundle(bundler: Bundler, mixed: Path) -> None:
    done = bundler("licenses", mixed)
    assert done.returncode == 0, done.stderr
    blocks = {}
    for line in done.stdout.splitlines():
        if line.startswith("  "):
            blocks[head].append(line.split()[1])  # noqa: F821
        else:
            head = line.partition(":")[0]
            blocks[head] = []
    assert blocks == {
        "non-commercial": ["small"],
        "unknown": ["silent"],
        "copyleft": ["viral"],
        "restricted": [],
        "weak copyleft": ["library"],
        "permissive": ["free"],
    }


def test_for_programs(bundler: Bundler, mixed: Path) -> None:
    found = json.loads(bundler("licenses", mixed, "--json").stdout)
    (model,) = found["models"]
    assert (model["expression"], model["concerns"]) == ("CC-BY-NC-4.0", ["non-commercial"])
    assert {one["name"]: (one["expression"], one["source"]) for one in found["packages"]} == {
        "free": ("MIT", "License-Expression"),
        "library": ("LGPL-2.1-or-later", "conda"),
        "silent": ("NOASSERTION", "not stated"),
        "viral": ("GPL-3.0-only", "License"),
    }
