"""From an installation to what is served: the environment, the model and the interpreter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bundler.errors import InputError
from bundler.host.interpreter import find_interpreter, probe
from bundler.host.needs import Needs, package_version
from bundler.installation import CACHE
from bundler.serve.environment_checks import writable_folder
from bundler.serve.launch import Served
from bundler.workspace import prefix_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from bundler.host.interpreter import Interpreter
    from bundler.installation import Installation
    from bundler.manifest import Environment
    from bundler.serve.launch import ServerLaunch


@dataclass(frozen=True, slots=True)
class Software:
    """What serves: an environment of the installation, or an interpreter from elsewhere."""

    environment: str | None
    prefix: Path | None
    """To activate; ``None`` for an interpreter from elsewhere."""
    python: Path
    cuda: str | None
    torch: str | None
    sglang: str | None
    glibc: str | None = None
    cudnn: str | None = None
    interpreter: Interpreter | None = None
    """The interpreter's own account, where it was asked."""


def software_of(root: Path, environment: Environment) -> Software:
    """Return an environment of an installation as what serves."""
    prefix = prefix_of(root, environment.name)
    return Software(
        environment=environment.name,
        prefix=prefix,
        python=prefix / "bin" / "python",
        cuda=environment.cuda,
        torch=environment.torch,
        sglang=environment.sglang,
        glibc=environment.glibc,
        cudnn=package_version(environment, "nvidia-cudnn-cu12"),
    )


def software_at(python: str, keep: Collection[str] = ()) -> Software:
    """Return an interpreter from elsewhere as what serves, by its own account.

    :raises InputError: there is none, or it doesn't answer.
    """
    path = find_interpreter(python)
    told = probe(path, keep)
    return Software(None, None, path, told.cuda, told.torch, told.sglang, cudnn=told.cudnn, interpreter=told)


def choose_software(
    installation: Installation, environment: str | None, python: str | None, keep: Collection[str] = ()
) -> Software:
    """Return what serves in an installation.

    :param python: ``--python``; wins over the installation's environments.
    :param keep: the caller's variables that reach the server all the same.
    :raises InputError: there is no such environment or interpreter.
    """
    if python is not None:
        return software_at(python, keep)
    if not installation.environments:
        raise InputError(
            "this installation holds no environment",
            where=installation.root,
            hint="name an interpreter that has SGLang: --python python3; or unpack a bundle with one",
        )
    return software_of(installation.root, installation.environment(environment))


def target_of(installation: Installation, model: str | None, software: Software) -> Served:
    """Return what is served in an installation.

    :raises UnknownNameError: no such model, or several to choose from.
    """
    chosen = installation.model(model)
    home = software.prefix
    if home is None and software.interpreter is not None:
        home = Path(software.interpreter.prefix)
    return Served(
        root=installation.root,
        spec=chosen.spec,
        facts=chosen.facts,
        weights=installation.root / chosen.path,
        environment=software.environment,
        prefix=home,
        python=software.python,
        sglang=software.sglang,
        caches=writable_folder(installation.root, CACHE),
    )


def needs_of_launch(target: Served, launch: ServerLaunch, software: Software) -> Needs:
    """Return what a launch wants of the host."""
    return Needs(
        environment=software.environment,
        cuda=software.cuda,
        torch=software.torch,
        sglang=software.sglang,
        glibc=software.glibc,
        cudnn=software.cudnn,
        model=target.spec.name,
        facts=target.facts,
        requires=target.spec.requires,
        tp_size=launch.tp_size,
        nnodes=launch.nnodes,
        mem_fraction=launch.mem_fraction,
        port=launch.port,
        dist_init_addr=launch.dist_init_addr,
    )
