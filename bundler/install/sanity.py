"""The sanity check: import what matters with an environment's own Python, and say the versions."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bundler.activation import activation_environment
from bundler.environment_check import CHECK_SECONDS, LOADED, run_script
from bundler.errors import InstallError
from bundler.install.host_libraries import host_libraries
from bundler.install.installer import clean_environment
from bundler.install.stand_in_driver import give_driver
from bundler.workspace import normalised

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bundler.workspace import EnvironmentLock

NAMED = {"torch": "torch", "sglang": "sglang", "sgl-kernel": "sgl_kernel", "sglang-kernel": "sgl_kernel"}
"""What an environment that serves is about: a package, and the module that is imported where it is locked."""
SERVER = ("deep_gemm", "sglang.srt.entrypoints.http_server", "sglang.srt.managers.scheduler")
"""What SGLang's server loads at its start, native libraries included; imported as far as a version has it."""
LACKING = re.compile(r"([\w./+-]+\.so[\w.]*): cannot open shared object file")
UNDEFINED = re.compile(r"([\w./+-]+\.so[\w.]*): undefined symbol: (\w+)")


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

        :param named: what the manifest names; where it names nothing, torch, SGLang, its kernels and its
            server, and in an environment without them, every wheel whose module has the package's name.
        """
        if named:
            return cls(wanted=named)
        wanted = tuple(dict.fromkeys(NAMED[name] for name in NAMED if environment.version_of(name)))
        if wanted:
            return cls(wanted=wanted, if_there=SERVER if environment.version_of("sglang") else ())
        wheels = (one.name for one in environment.artifacts if one.kind == "wheel")
        names = (normalised(name).replace("-", "_") for name in wheels)
        return cls(if_there=tuple(sorted({name for name in names if name.isidentifier()})))


def check_imports(
    prefix: Path,
    imports: Imports,
    base: Mapping[str, str] | None = None,
    timeout: float = CHECK_SECONDS,
    *,
    elsewhere: bool = False,
) -> dict[str, str]:
    """Import modules with an environment activated, seeing none of the caller's configuration.

    :param prefix: the environment.
    :param base: the caller's variables; this process's where not given.
    :param timeout: seconds for all of them.
    :param elsewhere: whether the environment is for another host, and may rely on nothing of this one's.
    :returns: the version of each module, an empty one where it states none; for torch also
        ``torch.version.cuda`` and ``torch.cuda.device_count``.
    :raises InstallError: an import failed; the findings are the end of what it said.
    """
    prefix = prefix.absolute()  # the imports run in another folder
    with tempfile.TemporaryDirectory(prefix="bundler-import-") as home:
        variables = activation_environment(prefix, clean_environment(base or os.environ, Path(home)))
        variables |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        # DeepGEMM wants to know of a toolkit, and looks into it only to compile.
        variables.setdefault("CUDA_HOME", str(prefix))
        python: list[str | Path] = [prefix / "bin" / "python", "-s", "-P"]
        if driver := give_driver(prefix, Path(home), python, variables):
            variables["LD_LIBRARY_PATH"] = driver
        run = run_script(
            python,
            variables,
            wanted=imports.wanted,
            if_there=imports.if_there,
            loaded=elsewhere,
            timeout=timeout,
            cwd=Path(home),
            failure=InstallError,
        )
    results = [one for one in run.results if one.name != LOADED]
    failed = next((one for one in results if not one.passed), None)
    if failed is None and not run.broke_off and run.code == 0:
        if elsewhere:
            _refuse_host_libraries(prefix, run.results[-1].seen)
        return {name: version for one in results for name, version in one.versions.items()}
    lines = failed.seen.splitlines() if failed else [line for line in run.output if line.strip()]
    how = f"signal {-run.code}" if run.code < 0 else f"exit code {run.code}"
    what = failed.name if failed else run.begun or "the check"
    cause, fix = _cause("\n".join(lines))
    raise InstallError(
        f"{what} failed in the installed environment ({cause or how})",
        findings=lines[-8:],
        where=prefix,
        hint=fix,
    )


def _refuse_host_libraries(prefix: Path, loaded: str) -> None:
    """Refuse an environment that works here because of what this host happens to have.

    :raises InstallError: naming the libraries.
    """
    found = host_libraries(prefix, map(Path, loaded.splitlines()))
    if found:
        names = ", ".join(found)
        raise InstallError(
            f"the environment needs {names}, which this host has and no package of the environment brings",
            findings=[
                f"{path.relative_to(prefix.resolve())} is linked with {name}" for name, path in found.items()
            ],
            where=prefix,
            hint=f"lock the package that brings {names}; where the target surely has it: pack --no-rehearse",
        )


def _cause(said: str) -> tuple[str, str | None]:
    """Return the library that is at fault, and what to do; empty where none is."""
    if lacking := LACKING.search(said):
        name = Path(lacking[1]).name
        fix = f"lock the package that brings {name}, or builds for the CUDA that the environment has"
        return f"the library {name} isn't there", fix
    if undefined := UNDEFINED.search(said):
        name = Path(undefined[1]).name
        fix = "lock versions that were built for each other: torch, its CUDA packages, and SGLang's kernels"
        return f"the library {name} wants {undefined[2]}, which no other has", fix
    return "", None
