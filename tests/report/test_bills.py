"""Bills of materials: held against the validators of their own formats."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from bundler.archive.bundle import Bundle
from bundler.errors import InputError
from bundler.report.identity import model_url, package_url
from bundler.report.inventory import take_inventory
from bundler.report.libraries import needed
from tests.report.make import conda, make_bundle, model_of, wheel

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.cli.conftest import Bundler

KINDS = ("cyclonedx", "spdx")
ODD = 'Odd "words" & <tags>,\u0007 and ünïcode'


def validate(kind: str, path: Path) -> None:
    """Hold a document against its format's own validator."""
    if kind == "cyclonedx":
        text = path.read_text(encoding="utf-8")
        assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    else:
        assert validate_full_spdx_document(parse_file(str(path))) == []


def bill(bundler: Bundler, kind: str, folder: Path, bundles: Sequence[Path]) -> dict[str, Any]:
    done = bundler("report", *bundles, "--sbom", kind, "-o", f"{kind}.{kind}.json")
    assert done.returncode == 0, done.stderr
    path = folder / f"{kind}.{kind}.json"
    # spdx-tools tells the format by the ending.
    path = path.rename(folder / ("bill.spdx.json" if kind == "spdx" else "bill.cdx.json"))
    validate(kind, path)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


@pytest.fixture
def odd(tmp_path: Path) -> list[Path]:
    """Return a bundle of packages and a model that say odd things of themselves."""
    packages = [
        wheel("plain", "1.0", "License-Expression: MIT OR GPL-2.0-only", "Home-page: not an address"),
        wheel("words", "2", f"License: {ODD}", f"Summary: {ODD}"),
        wheel("silent", "3"),
        wheel("named", "4", "License-Expression: LicenseRef-Own-Words"),
        conda("lib", "5", {"license": "LicenseRef-NVIDIA-EULA"}, {"home": "https://example.org/lib"}),
    ]
    return make_bundle(tmp_path, packages, model=model_of(license="llama3.1", description=ODD))


@pytest.mark.parametrize("kind", KINDS)
def test_odd_words_make_a_valid_document(
    bundler: Bundler, odd: list[Path], tmp_path: Path, kind: str
) -> None:
    bill(bundler, kind, tmp_path, odd)


def test_cyclonedx_of_a_real_bundle(bundler: Bundler, packed: Path, tmp_path: Path) -> None:
    found = bill(bundler, "cyclonedx", tmp_path, [packed])
    by_name = {
        (one["name"], one["properties"][1]["value"]): one
        for one in found["components"]
        if "purl" in one and len(one["properties"]) > 1
    }
    manifest = json.loads((packed / "manifest.json").read_text(encoding="utf-8"))
    for kind, name, version, _, _, _, digest, *_ in manifest["environments"][0]["packages"]:
        one = by_name[name, "default"]
        assert one["version"] == version
        assert one["hashes"] == [{"alg": "SHA-256", "content": digest}]
        assert one["purl"].startswith(f"pkg:{'pypi' if kind == 'wheel' else 'conda'}/{name}@{version}")
    assert by_name["tqdm", "default"]["licenses"] == [
        {"acknowledgement": "declared", "expression": "MPL-2.0 AND MIT"}
    ]
    assert ("bundler", "runtime") in by_name and ("python", "runtime") in by_name
    (model,) = [one for one in found["components"] if one["type"] == "machine-learning-model"]
    assert model["modelCard"]["modelParameters"]["modelArchitecture"] == "Glm4MoeForCausalLM"
    files = {one["name"]: one["hashes"][0]["content"] for one in model["components"]}
    assert files == {row[0]: row[4] for row in manifest["tree"] if row[0].startswith("weights/") and row[4]}


def test_spdx_of_a_real_bundle(bundler: Bundler, packed: Path, tmp_path: Path) -> None:
    found = bill(bundler, "spdx", tmp_path, [packed])
    manifest = json.loads((packed / "manifest.json").read_text(encoding="utf-8"))
    sums = {one["checksums"][0]["checksumValue"] for one in found["packages"] if "checksums" in one}
    assert {row[6] for row in manifest["environments"][0]["packages"]} <= sums
    assert {row[4] for row in manifest["tree"] if row[0].startswith("weights/") and row[4]} <= sums
    by_name = {one["name"]: one for one in found["packages"]}
    assert by_name["tqdm"]["licenseDeclared"] == "MPL-2.0 AND MIT"
    assert by_name["tiny-glm4-moe"]["licenseDeclared"] == "MIT"
    held = {one["relatedSpdxElement"] for one in found["relationships"]}
    assert held == {one["SPDXID"] for one in found["packages"]}


def test_what_isn_t_on_spdx_s_list_is_given_with_its_words(
    bundler: Bundler, odd: list[Path], tmp_path: Path
) -> None:
    found = bill(bundler, "spdx", tmp_path, odd)
    extracted = {one["licenseId"]: one["extractedText"] for one in found["hasExtractedLicensingInfos"]}
    assert extracted["LicenseRef-llama3.1"] == "llama3.1"
    assert {"LicenseRef-NVIDIA-EULA", "LicenseRef-Own-Words"} <= extracted.keys()
    by_name = {one["name"]: one for one in found["packages"]}
    assert by_name["silent"]["licenseDeclared"] == "NOASSERTION"
    assert "homepage" not in by_name["plain"] and by_name["lib"]["homepage"] == "https://example.org/lib"


def test_package_urls(odd: list[Path]) -> None:
    """Each is read by the specification's own library; a host's port is found again."""
    with Bundle.open(odd) as opened:
        inventory = take_inventory(opened)
    by_name = {one.name: one for one in inventory.packages}
    assert by_name["lib"].url == "https://conda.example:8443/forge/linux-64/lib-5-h0_0.conda"
    read = PackageURL.from_string(package_url(by_name["lib"]).to_string())
    assert (read.type, read.name, read.version) == ("conda", "lib", "5")
    assert read.qualifiers == {"build": "h0_0", "channel": "forge", "subdir": "linux-64", "type": "conda"}
    assert package_url(by_name["plain"]).to_string().startswith("pkg:pypi/plain@1.0?file_name=plain-1.0-py3")
    (model,) = inventory.models
    assert model_url(model).to_string() == f"pkg:huggingface/owner/small@{'0' * 40}"


def test_the_runtime_s_libraries_are_enough_but_for_bills(odd: list[Path], tmp_path: Path) -> None:
    """What writes bills of materials doesn't travel."""
    lacking = "import sys; sys.modules.update(packageurl=None, cyclonedx=None)"

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        start = f"{lacking}; from bundler.cli.main import run; run({[*map(str, words)]})"
        return subprocess.run(
            [sys.executable, "-c", start], cwd=tmp_path, capture_output=True, text=True, check=False
        )

    for words in (("report", *odd), ("licenses", *odd), ("diff", *odd, *odd)):
        assert run(*words).returncode == 0
    for kind in KINDS:
        done = run("report", "--sbom", kind, *odd)
        assert done.returncode == InputError.exit_code
        assert "is not here, which this report needs" in done.stderr and "pip install" in done.stderr


def test_a_library_that_isn_t_here_is_named() -> None:
    with pytest.raises(InputError, match="the library cyclonedx-python-lib is not here") as caught, needed():
        raise ModuleNotFoundError("No module named 'cyclonedx.model'", name="cyclonedx.model")
    assert "pip install cyclonedx-python-lib" in str(caught.value)
