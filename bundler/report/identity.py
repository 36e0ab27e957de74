"""What tells packages and models apart in the whole world: package URLs (https://github.com/package-url)."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from packageurl import PackageURL

if TYPE_CHECKING:
    from bundler.report.inventory import ModelItem, PackageItem

HUGGING_FACE, MODELSCOPE = "huggingface:", "modelscope:"


def package_url(package: PackageItem) -> PackageURL:
    """Return a package's purl: of a wheel ``pkg:pypi``, of a conda package ``pkg:conda``."""
    path = PurePosixPath(unquote(urlsplit(package.url).path))
    if package.kind == "wheel":
        qualifiers = {"file_name": path.name} if path.suffix == ".whl" else {}
        return PackageURL("pypi", None, package.name, package.version, qualifiers)
    qualifiers = {"build": package.build} if package.build else {}
    if len(path.parts) > 3:
        kind = "conda" if path.suffix == ".conda" else "tar.bz2"
        qualifiers |= {"channel": path.parts[-3], "subdir": path.parts[-2], "type": kind}
    return PackageURL("conda", None, package.name, package.version, qualifiers)


def model_url(one: ModelItem) -> PackageURL:
    """Return a model's purl: ``pkg:huggingface``, or ``pkg:generic`` for other origins."""
    origin, revision = one.model.origin, one.model.revision
    if origin.startswith(HUGGING_FACE):
        owner, _, name = origin.removeprefix(HUGGING_FACE).rpartition("/")
        return PackageURL("huggingface", owner, name or one.model.spec.name, revision)
    address = model_address(one)
    qualifiers = {"download_url": address} if address else {}
    return PackageURL("generic", None, one.model.spec.name, revision, qualifiers)


def model_address(one: ModelItem) -> str:
    """Return the page that a model comes from, or an empty word for one out of a folder."""
    origin = one.model.origin
    if origin.startswith(HUGGING_FACE):
        return f"https://huggingface.co/{quote(origin.removeprefix(HUGGING_FACE))}"
    if origin.startswith(MODELSCOPE):
        return f"https://modelscope.cn/models/{quote(origin.removeprefix(MODELSCOPE))}"
    return ""


def is_address(text: str) -> bool:
    """Say whether a text is a plain web address, which formats that ask for one take."""
    return re.fullmatch(r"https?://[A-Za-z0-9.-]+(:\d+)?(/[^\s<>\"{}|\\^`]*)?", text) is not None
