"""A bill of materials as SPDX 2.3 JSON (https://spdx.github.io/spdx-spec/v2.3).

The document is plain data: the libraries that write SPDX bring an RDF store with them. Those libraries'
validator is run over it by the tests.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from bundler import __version__
from bundler.report.identity import is_address, model_address, model_url, package_url
from bundler.report.licences import NOTHING, stated_as_reference

if TYPE_CHECKING:
    from datetime import datetime

    from bundler.manifest import Entry
    from bundler.report.inventory import Inventory, ModelItem, PackageItem
    from bundler.report.licences import Licence

ROOT = "SPDXRef-Bundle"


def render_spdx(inventory: Inventory, made: datetime) -> str:
    """Return the document.

    :param made: when, in UTC.
    """
    return json.dumps(_Document(inventory, made).whole(), indent=1, ensure_ascii=False) + "\n"


class _Document:
    """The document while its parts are gathered."""

    def __init__(self, inventory: Inventory, made: datetime) -> None:
        self._inventory = inventory
        self._made = made
        self._packages: list[dict[str, Any]] = []
        self._relations: list[dict[str, str]] = []
        self._extracted: dict[str, str] = {}

    def whole(self) -> dict[str, Any]:
        """Return the document as JSON's data."""
        bundle = self._inventory.bundle
        digest = self._inventory.digest
        self._packages.append(
            _package(ROOT, bundle.name, purpose="ARCHIVE")
            | {"comment": f"sha256 of SHA256SUMS: {digest}; manifest.json: {bundle.manifest_sha256}"}
        )
        self._relate("SPDXRef-DOCUMENT", "DESCRIBES", ROOT)
        for number, package in enumerate(self._inventory.packages):
            self._add(f"SPDXRef-Package-{number}", self._of_package(package))
        for number, model in enumerate(self._inventory.models):
            self._add_model(f"SPDXRef-Model-{number}", model)
        return {
            "spdxVersion": "SPDX-2.3",
            "dataLicense": "CC0-1.0",
            "SPDXID": "SPDXRef-DOCUMENT",
            "name": bundle.name,
            "documentNamespace": f"https://spdx.org/spdxdocs/bundler/{bundle.name}-{digest}",
            "creationInfo": {
                "created": f"{self._made:%Y-%m-%dT%H:%M:%SZ}",
                "creators": [f"Tool: bundler-{__version__}"],
            },
            "packages": self._packages,
            "relationships": self._relations,
            "hasExtractedLicensingInfos": [
                {"licenseId": key, "extractedText": text} for key, text in sorted(self._extracted.items())
            ],
        }

    def _add(self, key: str, package: dict[str, Any], holder: str = ROOT) -> None:
        self._packages.append({**package, "SPDXID": key})
        self._relate(holder, "CONTAINS", key)

    def _relate(self, one: str, word: str, other: str) -> None:
        self._relations.append({"spdxElementId": one, "relationshipType": word, "relatedSpdxElement": other})

    def _of_package(self, package: PackageItem) -> dict[str, Any]:
        metadata = package.metadata
        found = _package("", package.name, package.version, package.url, purpose="LIBRARY")
        found |= (
            self._licence(package.licence)
            | _purl(package_url(package).to_string())
            | _checksum(package.sha256)
        )
        if is_address(metadata.homepage):
            found["homepage"] = metadata.homepage
        if metadata.summary:
            found["summary"] = metadata.summary
        comments = [f"{package.kind} package of {package.where}", package.problem]
        return found | {"comment": "; ".join(filter(None, comments))}

    def _add_model(self, key: str, one: ModelItem) -> None:
        facts = one.model.facts
        found = _package(
            "", one.model.spec.name, one.model.revision or "", model_address(one), purpose="OTHER"
        )
        found |= self._licence(one.licence) | _purl(model_url(one).to_string())
        words = [
            "machine learning model",
            one.model.origin,
            facts.architecture,
            facts.dtype,
            facts.quantization,
        ]
        self._add(key, found | {"comment": ", ".join(filter(None, words))})
        for number, entry in enumerate(one.files):
            self._add(f"{key}-File-{number}", _file(entry), key)

    def _licence(self, licence: Licence) -> dict[str, Any]:
        """Return what was declared; what isn't on SPDX's list is given as a reference with its own words."""
        expression = licence.expression
        if expression == NOTHING and licence.stated:
            expression = stated_as_reference(licence.stated)
        for key in re.findall(r"LicenseRef-[A-Za-z0-9.-]+", expression):
            self._extracted.setdefault(key, licence.stated or key)
        return {"licenseDeclared": expression}


def _package(
    key: str, name: str, version: str = "", address: str = "", *, purpose: str = "LIBRARY"
) -> dict[str, Any]:
    found = {
        "SPDXID": key,
        "name": name,
        "downloadLocation": address if is_address(address) else NOTHING,
        "filesAnalyzed": False,
        "licenseConcluded": NOTHING,
        "licenseDeclared": NOTHING,
        "copyrightText": NOTHING,
        "supplier": NOTHING,
        "primaryPackagePurpose": purpose,
    }
    return found | ({"versionInfo": version} if version else {})


def _file(entry: Entry) -> dict[str, Any]:
    """Return a file as a package: SPDX asks for a SHA-1 of what it calls a file, which nobody has here."""
    return _package("", entry.path, purpose="FILE") | _checksum(entry.sha256)


def _checksum(digest: str) -> dict[str, Any]:
    return {"checksums": [{"algorithm": "SHA256", "checksumValue": digest}]} if digest else {}


def _purl(address: str) -> dict[str, Any]:
    reference = {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": address}
    return {"externalRefs": [reference]}
