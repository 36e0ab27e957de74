"""What a licence asks for, told from what packages and model cards say of it.

SPDX expressions are parsed by ``license-expression``, whose index, ScanCode's LicenseDB, also says of which
category each licence is. Where a package gives no expression, the usual names and Trove's classifiers are
understood. What isn't understood is ``unknown``, never fine. This is a sorting for people who decide, no
legal advice.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from bundler.common.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Concern = Literal["non-commercial", "unknown", "copyleft", "restricted", "weak copyleft"]
CONCERNS: dict[Concern, str] = {
    "non-commercial": "forbids commercial use",
    "unknown": "not stated, or not understood",
    "copyleft": "asks for the same licence on what is built with it",
    "restricted": "not open source: has terms on use or on passing it on",
    "weak copyleft": "asks for the same licence on changes of itself",
}
"""Each concern and what it means, the gravest first."""

_CATEGORIES: dict[str, Concern | None] = {
    "Permissive": None,
    "Public Domain": None,
    "Copyleft": "copyleft",
    "Copyleft Limited": "weak copyleft",
    "Proprietary Free": "restricted",
    "Free Restricted": "restricted",
    "Source-available": "restricted",
    "Commercial": "restricted",
    "Patent License": "restricted",
    "CLA": "unknown",
    "Unstated License": "unknown",
}
"""LicenseDB's categories."""
_NON_COMMERCIAL = re.compile(
    r"\bnc\b|non-?commercial|\bncul|research-(?:only|license)|academic", re.IGNORECASE
)

_NAMES = {
    "apache": "Apache-2.0",
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache license": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd 2-clause": "BSD-2-Clause",
    "bsd 3-clause": "BSD-3-Clause",
    "3-clause bsd": "BSD-3-Clause",
    "3-clause bsd license": "BSD-3-Clause",
    "new bsd": "BSD-3-Clause",
    "modified bsd": "BSD-3-Clause",
    "bsd 3-clause license": "BSD-3-Clause",
    "expat": "MIT",
    "mit license": "MIT",
    "the mit license": "MIT",
    "isc license": "ISC",
    "mozilla public license 2.0": "MPL-2.0",
    "psf": "PSF-2.0",
    "psf license": "PSF-2.0",
    "python software foundation license": "PSF-2.0",
    "zpl 2.1": "ZPL-2.1",
    "c-uda": "C-UDA-1.0",
    "odbl": "ODbL-1.0",
    "odc-by": "ODC-By-1.0",
    "openmdw-1.0": "LicenseRef-OpenMDW-1.0",
    "pddl": "PDDL-1.0",
    "gpl2": "GPL-2.0-only",
    "gpl3": "GPL-3.0-only",
    "gplv2": "GPL-2.0-only",
    "gplv3": "GPL-3.0-only",
    "lgplv3": "LGPL-3.0-only",
    "public domain": "LicenseRef-scancode-public-domain",
}
"""Names that packages write where an expression should be; compared without case, commas and brackets."""
_CLASSIFIERS = {
    "Academic Free License (AFL)": "AFL-3.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "LicenseRef-BSD",
    "Boost Software License 1.0 (BSL-1.0)": "BSL-1.0",
    "CC0 1.0 Universal (CC0 1.0) Public Domain Dedication": "CC0-1.0",
    "GNU Affero General Public License v3": "AGPL-3.0-only",
    "GNU Affero General Public License v3 or later (AGPLv3+)": "AGPL-3.0-or-later",
    "GNU General Public License (GPL)": "LicenseRef-GPL",
    "GNU General Public License v2 (GPLv2)": "GPL-2.0-only",
    "GNU General Public License v2 or later (GPLv2+)": "GPL-2.0-or-later",
    "GNU General Public License v3 (GPLv3)": "GPL-3.0-only",
    "GNU General Public License v3 or later (GPLv3+)": "GPL-3.0-or-later",
    "GNU Lesser General Public License v2 (LGPLv2)": "LGPL-2.0-only",
    "GNU Lesser General Public License v2 or later (LGPLv2+)": "LGPL-2.0-or-later",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
    "GNU Library or Lesser General Public License (LGPL)": "LicenseRef-LGPL",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Mozilla Public License 1.1 (MPL 1.1)": "MPL-1.1",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "Universal Permissive License (UPL)": "UPL-1.0",
    "Zope Public License": "ZPL-2.1",
    "zlib/libpng License": "Zlib",
    "Other/Proprietary License": "LicenseRef-Proprietary",
    "NVIDIA Proprietary Software": "LicenseRef-NVIDIA-Proprietary",
    "Public Domain": "LicenseRef-scancode-public-domain",
}
"""Trove's classifiers, by their last part (https://pypi.org/classifiers)."""
_REFERENCES: tuple[tuple[re.Pattern[str], Concern | None], ...] = (
    (_NON_COMMERCIAL, "non-commercial"),
    (re.compile(r"deepfloyd|h-research|intel-research|apple-amlr|fair-ai", re.IGNORECASE), "non-commercial"),
    (re.compile(r"lgpl|lesser general|library general|cddl", re.IGNORECASE), "weak copyleft"),
    (re.compile(r"(?<!l)gpl|(?<!lesser )(?<!library )general public licen|gfdl", re.IGNORECASE), "copyleft"),
    (
        re.compile(r"proprietary|nvidia|intel|cuda|cudnn|eula|end user|commercial", re.IGNORECASE),
        "restricted",
    ),
    (
        re.compile(
            r"llama|gemma|\brail\b|openrail|grok|apple-|qwen|deepseek|tongyi|health-ai|glm-?4\b",
            re.IGNORECASE,
        ),
        "restricted",
    ),
    (re.compile(r"\bbsd\b|\bmit\b|openmdw|public.domain|^etalab", re.IGNORECASE), None),
)
"""What licences outside of SPDX's list tell by their names, Hugging Face's ids in model cards among them."""


class Licence(msgspec.Struct, frozen=True, kw_only=True):
    """A licence as it was understood."""

    stated: str
    """What the package or the model card says; empty where it says nothing."""
    expression: str
    """An SPDX expression; ``NOASSERTION`` where nothing was understood."""
    source: str
    """Where it was stated: ``License-Expression``, ``License``, ``classifier``, ``conda``, ``model card``."""
    concerns: tuple[Concern, ...]
    """What it asks for, the gravest first; none for a permissive one."""


NOTHING = "NOASSERTION"
"""SPDX's word for what isn't known."""


def understand(stated: str, source: str, classifiers: Sequence[str] = ()) -> Licence:
    """Return what a licence asks for.

    :param stated: an expression, a name, a whole text, or nothing.
    :param source: where it stands.
    :param classifiers: a wheel's; asked where the rest says nothing that is understood.
    """
    expression = _expression(stated)
    if expression is None and classifiers:
        found = _from_classifiers(classifiers)
        if found:
            shown = stated if 0 < len(stated) <= 80 else "; ".join(classifiers)
            return _graded(shown, found, "classifier")
    return _graded(stated, expression or NOTHING, source)


def _graded(stated: str, expression: str, source: str) -> Licence:
    if expression != NOTHING:
        found = _concerns(_licensing().parse(expression))
    else:
        # Of a whole text or an unheard-of name the words may still tell, but only for the worse.
        told = _by_name(" ".join(stated[:200].split()))
        found = frozenset({told} if told not in (None, "unknown") else {"unknown"})
    return Licence(
        stated=_short(stated),
        expression=expression,
        source=source if stated else "not stated",
        concerns=tuple(concern for concern in CONCERNS if concern in found),
    )


def _short(stated: str) -> str:
    """Return the first line of a whole text, fit for a terminal."""
    line = next((one.strip() for one in stated.splitlines() if one.strip()), "")
    line = printable(line)
    return line if len(line) <= 120 else line[:119] + "…"


def _expression(stated: str) -> str | None:
    """Return a statement as an SPDX expression, or ``None`` where it isn't understood."""
    text = stated.strip()
    if not text or len(text) > 1000 or "\n" in text:
        return None
    named = _NAMES.get(re.sub(r"[(),\"']", "", text).replace("  ", " ").lower().removesuffix("."))
    if named:
        return named
    for candidate in (text, re.sub(r"\s*/\s*", " OR ", text)):
        parsed = _parsed(candidate)
        if parsed is not None:
            return str(parsed)
    return None


def _parsed(text: str) -> Any:
    """Return an expression whose every licence is SPDX's, or a reference that looks like one."""
    from license_expression import ExpressionError
    from license_expression import ParseError as LicenceParseError

    licensing = _licensing()
    try:
        tree = licensing.parse(text)
        known = tree is not None and all(_is_known(key) for key in licensing.license_keys(tree))
    except (ExpressionError, LicenceParseError):
        return None
    return tree.render() if known else None


def _is_known(key: str) -> bool:
    return key.lower() in _categories() or re.fullmatch(r"LicenseRef-[A-Za-z0-9.-]+", key) is not None


def _from_classifiers(classifiers: Sequence[str]) -> str | None:
    """Return the licences of the classifiers as one expression: several may mean all of them."""
    lasts = [one.rpartition(" :: ")[2] for one in classifiers]
    found = dict.fromkeys(_CLASSIFIERS[last] for last in lasts if last in _CLASSIFIERS)
    return " AND ".join(found) or None


def _concerns(tree: Any) -> frozenset[Concern]:
    """Grade an expression: of ``AND`` all counts, of ``OR`` the alternative that asks for least."""
    parts = [_concerns(part) for part in getattr(tree, "args", ()) if not hasattr(tree, "license_symbol")]
    if parts and tree.operator.strip().upper() == "OR":
        return min(parts, key=_gravity)
    if parts:
        return frozenset().union(*parts)
    told = _of_symbol(tree)
    return frozenset({told}) if told else frozenset()


def _gravity(found: frozenset[Concern]) -> int:
    order = [*reversed(CONCERNS)]
    return max((order.index(concern) + 1 for concern in found), default=0)


def _of_symbol(symbol: Any) -> Concern | None:
    exception = getattr(symbol, "exception_symbol", None)
    # An exception takes away from the licence, and has a category of its own: GCC's runtime is weak copyleft.
    key = str(exception.key if exception is not None else symbol.key)
    category = _categories().get(key.lower())
    if category is None:
        return _by_name(key)
    if _NON_COMMERCIAL.search(key):
        return "non-commercial"
    return _CATEGORIES.get(category, "unknown")


def _by_name(name: str) -> Concern | None:
    """Return the gravest of what a name tells."""
    told = {concern for pattern, concern in _REFERENCES if pattern.search(name.replace("_", "-"))}
    return next((concern for concern in CONCERNS if concern in told), None if told else "unknown")


def stated_as_reference(stated: str) -> str:
    """Return words that aren't an expression as a reference of SPDX's: ``LicenseRef-llama3.1``."""
    return "LicenseRef-" + (re.sub(r"[^A-Za-z0-9.]+", "-", stated).strip("-.")[:80] or "unnamed")


@functools.cache
def _licensing() -> Any:
    from license_expression import get_spdx_licensing

    return get_spdx_licensing()


@functools.cache
def _categories() -> dict[str, str]:
    return dict(_index())


def _index() -> Iterator[tuple[str, str]]:
    from license_expression import get_license_index

    for record in get_license_index():
        for key in (record.get("spdx_license_key"), *record.get("other_spdx_license_keys", ())):
            if key:
                yield key.lower(), record["category"]
