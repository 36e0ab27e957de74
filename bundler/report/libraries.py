"""The libraries of reports are not everywhere where bundler is: the runtime that travels lacks some."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from bundler.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

DISTRIBUTIONS = {"cyclonedx": "cyclonedx-python-lib", "license_expression": "license-expression"}
"""What a module's package is called where that isn't the module's own name."""


@contextlib.contextmanager
def needed() -> Iterator[None]:
    """Turn a library that isn't here into a message.

    :raises InputError: a module of another package can't be found.
    """
    try:
        yield
    except ModuleNotFoundError as problem:
        module = (problem.name or "").partition(".")[0]
        if module in ("", "bundler"):
            raise
        name = DISTRIBUTIONS.get(module, module)
        raise InputError(
            f"the library {name} is not here, which this report needs",
            hint=f"run it on the host with a network, where pip installed bundler, or: pip install {name}",
        ) from problem
