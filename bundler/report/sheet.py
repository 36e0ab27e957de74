"""The transfer sheet: one HTML page without a script or anything from elsewhere.

Whatever comes out of a bundle is untrusted text. The template escapes all of it, and the page's own policy
lets a browser run no script and load nothing, whatever the text is.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import TYPE_CHECKING, Any

import jinja2
import segno

from bundler import __version__
from bundler.common.units import size_text
from bundler.report.checks import checks_of
from bundler.report.drawing import largest, parts_of, stacked, treemap
from bundler.report.launch_text import launch_lines
from bundler.report.licences import CONCERNS, NOTHING
from bundler.report.needs import installed_size, payload_bytes, target_lines

if TYPE_CHECKING:
    from bundler.archive.bundle import Bundle
    from bundler.archive.verify import Verified
    from bundler.errors import BundlerError
    from bundler.report.inventory import Inventory
    from bundler.report.licences import Licence

SHOWN_BARS = 8
WIDE, NARROW = (1000, 400, 13), (360, 440, 11)
"""Width, height and font size of the treemap on a wide and on a narrow screen."""


def render_sheet(inventory: Inventory, made: str, verified: Verified | BundlerError | None = None) -> str:
    """Return the page.

    :param made: when, as it shall stand there.
    :param verified: what a check of every byte just now covered, or found.
    """
    style = _text("sheet.css")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return _template().render(
        style=style,
        style_digest=digest,
        made=made,
        version=__version__,
        **_facts(inventory, verified),
    )


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"size": size_text, "pieces": _pieces, "said": _said}
    return environment.from_string(_text("sheet.html.j2"))


def _text(name: str) -> str:
    return (resources.files("bundler.report") / name).read_text(encoding="utf-8")


def _facts(inventory: Inventory, verified: Verified | BundlerError | None) -> dict[str, Any]:
    bundle, manifest = inventory.bundle, inventory.bundle.manifest
    parts = parts_of(inventory)
    digest = inventory.digest
    return {
        "bundle": bundle,
        "manifest": manifest,
        "digest": digest,
        "qr": segno.make(digest, micro=False, error="m").svg_inline(border=4, light="#fff", omitsize=True),
        "checks": checks_of(inventory, verified),
        "parts": parts,
        "stacked": stacked(parts),
        "maps": [(*shape, treemap(parts, *shape)) for shape in (WIDE, NARROW)],
        "largest_packages": largest(parts, ("wheel", "conda"), SHOWN_BARS),
        "largest_weights": largest(parts, ("model",), SHOWN_BARS),
        "volumes": _volumes(bundle),
        "stored": sum(volume.size for volume in manifest.volumes),
        "payload": payload_bytes(manifest),
        "installed": installed_size(manifest)[0],
        "needs": list(target_lines(manifest)),
        "models": inventory.models,
        "packages": _groups(inventory),
        "package_count": len(inventory.packages),
        "concerns": _concerns(inventory),
        "launches": {
            one.model.spec.name: list(launch_lines(one.model.spec.launch)) for one in inventory.models
        },
        "companions": _companions(bundle),
    }


def _pieces(digest: str, length: int = 8) -> list[str]:
    """Cut a digest into pieces that an eye can compare."""
    return [digest[at : at + length] for at in range(0, len(digest), length)]


def _volumes(bundle: Bundle) -> list[tuple[Any, str]]:
    found = []
    for volume in bundle.manifest.volumes:
        reader = bundle.volumes.get(volume.name)
        state = "not here" if reader is None else "here" if reader.size() == volume.size else "wrong size"
        found.append((volume, state))
    return found


def _companions(bundle: Bundle) -> list[tuple[str, str]]:
    volumes = {volume.name for volume in bundle.manifest.volumes}
    return [(name, digest) for name, digest in bundle.sums.items() if name not in volumes]


def _groups(inventory: Inventory) -> dict[str, list[Any]]:
    """Return the packages by where they are installed: each stands once."""
    found: dict[str, list[Any]] = {}
    for one in inventory.packages:
        word = "environments" if len(one.environments) > 1 else "environment"
        title = f"{word} {one.where}" if one.environments else "runtime, which runs bundler on the target"
        found.setdefault(title, []).append(one)
    return found


def _concerns(inventory: Inventory) -> list[tuple[str, str, int, dict[str, list[str]]]]:
    """Return each concern with its meaning, how many have it as their gravest, and these by their licence."""
    named = {f"model {one.model.spec.name}": one.licence for one in inventory.models}
    named |= {f"{one.name} {one.version}": one.licence for one in inventory.packages}
    found: list[tuple[str, str, int, dict[str, list[str]]]] = []
    for concern, meaning in CONCERNS.items():
        by_licence: dict[str, list[str]] = {}
        for name, licence in named.items():
            if licence.concerns[:1] == (concern,):
                by_licence.setdefault(_said(licence), []).append(name)
        found.append((concern, meaning, sum(map(len, by_licence.values())), by_licence))
    return found


def _said(licence: Licence) -> str:
    """Return a licence's expression, or else what is stated."""
    return licence.expression if licence.expression != NOTHING else licence.stated or "not stated"
