"""A bill of materials as CycloneDX 1.6 JSON (https://cyclonedx.org), by its own library."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, Property, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, LicenseAcknowledgement, LicenseExpression
from cyclonedx.output.json import JsonV1Dot6

from bundler import __version__
from bundler.report.identity import is_address, model_address, model_url, package_url
from bundler.report.licences import NOTHING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from cyclonedx.model.license import License

    from bundler.report.inventory import Inventory, ModelItem, PackageItem
    from bundler.report.licences import Licence


def render_cyclonedx(inventory: Inventory, made: datetime) -> str:
    """Return the document.

    :param made: when, in UTC.
    """
    digest = inventory.digest
    root = Component(
        name=inventory.bundle.name,
        type=ComponentType.DATA,
        bom_ref="bundle",
        properties=[Property(name="bundler:sha256-of-SHA256SUMS", value=digest)],
    )
    components = [_package(number, one) for number, one in enumerate(inventory.packages)]
    components += [_model(number, one) for number, one in enumerate(inventory.models)]
    bill = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"sha256:{digest}"), components=components)
    bill.metadata.timestamp = made
    bill.metadata.component = root
    bill.metadata.tools.components.add(
        Component(name="bundler", version=__version__, type=ComponentType.APPLICATION)
    )
    bill.register_dependency(root, components)
    document = json.loads(JsonV1Dot6(bill).output_as_string())
    _add_cards(document, inventory)
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _package(number: int, one: PackageItem) -> Component:
    metadata = one.metadata
    links = [
        (ExternalReferenceType.DISTRIBUTION, one.url),
        (ExternalReferenceType.WEBSITE, metadata.homepage),
        (ExternalReferenceType.VCS, metadata.source),
    ]
    return Component(
        name=one.name,
        version=one.version,
        type=ComponentType.LIBRARY,
        bom_ref=f"package-{number}",
        description=metadata.summary or None,
        purl=package_url(one),
        hashes=_hashes(one.sha256),
        licenses=_licences(one.licence),
        external_references=list(_references(links)),
        properties=[
            Property(name="bundler:kind", value=one.kind),
            Property(name="bundler:part", value=one.where),
            *([Property(name="bundler:problem", value=one.problem)] if one.problem else []),
        ],
    )


def _model(number: int, one: ModelItem) -> Component:
    return Component(
        name=one.model.spec.name,
        version=one.model.revision,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=_model_key(number),
        description=one.model.spec.description or None,
        purl=model_url(one),
        licenses=_licences(one.licence),
        external_references=list(_references([(ExternalReferenceType.DISTRIBUTION, model_address(one))])),
        properties=[Property(name="bundler:origin", value=one.model.origin)],
        components=[
            Component(
                name=entry.path,
                type=ComponentType.FILE,
                bom_ref=f"{_model_key(number)}-file-{place}",
                hashes=_hashes(entry.sha256),
            )
            for place, entry in enumerate(one.files)
        ],
    )


def _model_key(number: int) -> str:
    return f"model-{number}"


def _hashes(digest: str) -> list[HashType]:
    return [HashType(alg=HashAlgorithm.SHA_256, content=digest)] if digest else []


def _licences(licence: Licence) -> list[License]:
    declared = LicenseAcknowledgement.DECLARED
    if licence.expression != NOTHING:
        return [LicenseExpression(licence.expression, acknowledgement=declared)]
    return [DisjunctiveLicense(name=licence.stated, acknowledgement=declared)] if licence.stated else []


def _references(links: list[tuple[ExternalReferenceType, str]]) -> Iterator[ExternalReference]:
    for kind, address in links:
        if is_address(address):
            yield ExternalReference(type=kind, url=XsUri(address))


def _add_cards(document: dict[str, Any], inventory: Inventory) -> None:
    """Add the models' cards, which the format has and the library doesn't write."""
    cards = {_model_key(number): _card(one) for number, one in enumerate(inventory.models)}
    for component in document.get("components", ()):
        if component["bom-ref"] in cards:
            component["modelCard"] = cards[component["bom-ref"]]


def _card(one: ModelItem) -> dict[str, Any]:
    facts = one.model.facts
    figures = {
        "dtype": facts.dtype,
        "quantization": facts.quantization,
        "parameters": facts.parameters,
        "weightBytes": facts.weight_bytes or None,
        "contextLength": facts.context_length,
        "experts": facts.experts,
        "layers": facts.layers,
        "remoteCode": ", ".join(facts.remote_code) or None,
    }
    parameters: dict[str, Any] = {
        "architectureFamily": "transformer",
        "modelArchitecture": facts.architecture,
        "inputs": [{"format": word} for word in (["text", "image"] if facts.vision else ["text"])],
        "outputs": [{"format": "text"}],
    }
    return {
        "modelParameters": {key: value for key, value in parameters.items() if value},
        "properties": [
            {"name": f"bundler:{name}", "value": str(value)}
            for name, value in figures.items()
            if value is not None
        ],
    }
