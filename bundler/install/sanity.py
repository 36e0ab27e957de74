"""The sanity check: import what matters with an environment's own Python, and say the versions."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bundler.activation import activation_environment
from bundler.environment_check import CHECK_SECONDS, run_script
from bundler.errors import InstallError
from bundler.install.installer import clean_environment
from bundler.workspace import normalised

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bundler.workspace import EnvironmentLock

NAMED = ("torch", "sglang")
"""What an environment that serves is about; imported wherever it is locked."""


@dataclass(frozen=True, slots=True)
class Imports:
    """The modules that an environment must be able to import."""

    wanted: tuple[str, ...] = ()
    """Fail where they are missing."""
    if_there: tuple[str, ...] = ()
    """Guessed from package names: those that exist are imported, and then must not fail."""

    @property
    def every(self) -> tuple[str, ...]:
        """All that is tried."""
        return (*self.wanted, *self.if_there)

    @classmethod
    def of(cls, environment: EnvironmentLock, named: tuple[str, ...] | None = None) -> Imports:
        """Return what to import of an environment.

        :param named: what the manifest names; where it names nothing, torch and sglang, and in an environment
            without both, every wheel whose module has the package's name.
        """
        wanted = named or tuple(name for name in NAMED if environment.version_of(name))
        if wanted:
            return cls(wanted=wanted)
        wheels = (one.name for one in environment.artifacts if one.kind == "wheel")
        names = (normalised(name).replace("-", "_") for name in wheels)
        return cls(if_there=tuple(sorted({name for name in names if name.isidentifier()})))


def check_imports(
    prefix: Path, imports: Imports, base: Mapping[str, str] | None = None, timeout: float = CHECK_SECONDS
) -> dict[str, str]:
    """Import modules with an environment activated, seeing none of the caller's configuration.

    :param prefix: the environment.
    :param base: the caller's variables; this process's where not given.
    :param timeout: seconds for all of them.
    :returns: the version of each module, an empty one where it states none; for torch also
        ``torch.version.cuda`` and ``torch.cuda.device_count``.
    :raises InstallError: an import failed; the findings are the end of what it said.
    """
    prefix = prefix.absolute()  # the imports run in another folder
    with tempfile.TemporaryDirectory(prefix="bundler-import-") as home:
        variables = activation_environment(prefix, clean_environment(base or os.environ, Path(home)))
        variables |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        run = run_script(
            [prefix / "bin" / "python", "-s", "-P"],
            variables,
            wanted=imports.wanted,
            if_there=imports.if_there,
            timeout=timeout,
            cwd=Path(home),
            failure=InstallError,
        )
    failed = next((one for one in run.results if not one.passed), None)
    if failed is None and not run.broke_off and run.code == 0:
        return {name: version for one in run.results for name, version in one.versions.items()}
    lines = failed.seen.splitlines() if failed else [line for line in run.output if line.strip()]
    how = f"signal {-run.code}" if run.code < 0 else f"exit code {run.code}"
    what = failed.name if failed else run.begun or "the check"
    raise InstallError(
        f"{what} failed in the installed environment ({how})", findings=lines[-8:], where=prefix
    )
