"""What a program that bundler starts takes over from the caller: variables, and the folder it runs in."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

FOREIGN = ("PYTHON", "LD_", "PIP_", "CONDA_")
"""Begin the variables that belong to another interpreter, loader or environment."""
NEUTRAL_FOLDER = "/"
"""Where none but root can lay a module that an interpreter would find before its own."""
SAFE_PATH = {"PYTHONSAFEPATH": "1"}
"""Keeps Python, from 3.11 on, from importing what lies in the folder it is started in; its children too."""


def withheld(variables: Mapping[str, str], keep: Collection[str] = ()) -> tuple[str, ...]:
    """Return the names of the caller's variables that a server must not see, sorted.

    A proxy is among them: SGLang's warm-up asks its own address through it, and ends when it can't.

    :param keep: names that pass all the same.
    """
    return tuple(
        sorted(
            name
            for name in variables
            if name not in keep and (name.startswith(FOREIGN) or name.lower().endswith("_proxy"))
        )
    )


def inherited(variables: Mapping[str, str], keep: Collection[str] = ()) -> dict[str, str]:
    """Return the caller's variables without those that are withheld."""
    out = set(withheld(variables, keep))
    return {name: value for name, value in variables.items() if name not in out}
