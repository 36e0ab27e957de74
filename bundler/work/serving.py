"""What ``doctor``, ``check``, ``serve``, ``smoke`` and ``systemd`` were asked to serve, opened and judged."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bundler.common.progress import SILENT
from bundler.errors import InputError, UnknownNameError, UsageError
from bundler.generations import home_of
from bundler.host.facts import describe, virtual_packages
from bundler.host.interpreter import find_interpreter, probe
from bundler.host.needs import Needs
from bundler.host.surroundings import inherited
from bundler.installation import CACHE, WEIGHTS, Installation, find_installation
from bundler.launch_names import exceptions
from bundler.model import ModelFacts, ModelSpec
from bundler.pixi_manifest import find_manifest
from bundler.serve.environment_checks import (
    check_home,
    check_openness,
    check_place,
    check_speculation,
    writable_folder,
)
from bundler.serve.launch import Served, Software, Wishes, build
from bundler.workspace import Workspace, prefix_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bundler.common.progress import Reporter
    from bundler.host.facts import HostFacts
    from bundler.host.finding import Finding
    from bundler.manifest import Environment
    from bundler.serve.launch import ServerLaunch
    from bundler.workspace import EnvironmentLock

CHECKED_ALONE = ModelSpec(name="no-model")
"""Stands for the model where an environment is checked by itself."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What the user named."""

    start: Path
    environment: str | None = None
    model: str | None = None
    python: str | None = None
    wishes: Wishes = field(default_factory=Wishes)
    weights: Path | None = None
    """A folder of weights other than the installation's."""
    dry_run: bool = False
    """Whether nothing is started, so that a workspace will do."""
    model_optional: bool = False


@dataclass(frozen=True, kw_only=True)
class Opened:
    """What it is."""

    installation: Installation | None
    """``None`` in a workspace."""
    host: HostFacts
    launch: ServerLaunch


def open_choice(choice: Choice, host: HostFacts | None = None) -> Opened:
    """Open what the user named.

    :param host: a described host; this one where not given.
    :raises InputError: it isn't there, or the model's launch sets what no manifest may set by itself.
    :raises UsageError: it doesn't fit together.
    """
    try:
        installation: Installation | None = find_installation(choice.start)
    except UnknownNameError:
        if not choice.dry_run or find_manifest(choice.start) is None:
            raise
        installation = None
    root = installation.root if installation else choice.start.resolve()
    software = _open_software(choice, installation, host)
    spec, facts, weights = _open_model(choice, installation)
    at_unpack = installation.allowed_launch if installation else frozenset()
    exceptions([spec], {*choice.wishes.allow_launch, *at_unpack}, root)
    target = Served(
        root=root,
        spec=spec,
        facts=facts,
        weights=choice.weights.absolute() if choice.weights else weights,
        software=software,
        caches=writable_folder(home_of(root), CACHE),
        pixi=installation is None and choice.python is None,
    )
    host = host or describe()
    activation = _activation(software, inherited(os.environ, choice.wishes.keep_env))
    launch = build(target, choice.wishes, host, os.environ, activation)
    return Opened(installation=installation, host=host, launch=launch)


def findings_of(
    opened: Opened,
    *,
    deep: bool = False,
    here: bool = True,
    key: bool = False,
    reporter: Reporter = SILENT,
) -> list[Finding]:
    """Compare the host with everything that serving needs.

    :param deep: hash every byte of the weights.
    :param here: whether the host is this one, so that the installation can be looked at.
    :param key: whether clients must give a key.
    """
    from bundler.host.doctor import examine

    findings = examine(opened.host, _needs(opened.launch))
    served = opened.launch.target.spec is not CHECKED_ALONE
    if served:
        findings.append(check_openness(opened.launch, key=key))
        findings += check_speculation(opened.launch)
    if here:
        findings += check_home(opened.launch)
        findings += check_place(opened.launch.target, opened.launch.environment(os.environ))
    if here and served:
        findings += _weights(opened, deep, reporter)
    return findings


def _needs(launch: ServerLaunch) -> Needs:
    target = launch.target
    return Needs(
        environment=target.software.environment,
        stack=target.software.stack,
        model=target.spec.name,
        facts=target.facts,
        requires=target.spec.requires,
        tp_size=launch.tp_size,
        nnodes=launch.nnodes,
        mem_fraction=launch.mem_fraction,
        port=launch.port,
        dist_init_addr=launch.dist_init_addr,
    )


def _weights(opened: Opened, deep: bool, reporter: Reporter) -> Iterator[Finding]:
    from bundler.serve.weights import check_folder, check_weights

    installation, weights = opened.installation, opened.launch.weights
    if installation is None or not weights.is_relative_to(installation.root):
        return check_folder(weights)
    folder = weights.relative_to(installation.root).as_posix()
    files = installation.receipt.files
    return check_weights(installation.root, folder, files, deep=deep, reporter=reporter)


def _open_software(
    choice: Choice, installation: Installation | None, host: HostFacts | None = None
) -> Software:
    """Open ``--python``, else the environment of the installation or the workspace.

    :param host: a described host, whose driver decides on a workspace's platform.
    :raises InputError: there is no such environment or interpreter.
    """
    if choice.python is not None:
        path = find_interpreter(choice.python)
        told = probe(path, choice.wishes.keep_env)
        return Software(None, Path(told.prefix), path, told, probed=True)
    one: EnvironmentLock | Environment
    if installation is None:
        root = choice.start.absolute()
        offered = virtual_packages(host) if host else None
        one = Workspace.load(root, offered=offered).environment(choice.environment or "default")
    elif installation.environments:
        root, one = installation.root, installation.environment(choice.environment)
    else:
        raise InputError(
            "this installation holds no environment",
            where=installation.root,
            hint="name an interpreter that has SGLang: --python python3; or unpack a bundle with one",
        )
    prefix = prefix_of(root, one.name)
    return Software(one.name, prefix, prefix / "bin" / "python", one.stack)


def _open_model(choice: Choice, installation: Installation | None) -> tuple[ModelSpec, ModelFacts, Path]:
    """Return a model's manifest, what its files say and where they are.

    :raises UnknownNameError: no such model, or several to choose from.
    """
    if installation is None:
        return _model_of_workspace(choice)
    name, spec = choice.model, CHECKED_ALONE
    if choice.model_optional and name is None and len(installation.models) > 1:
        name = next(iter(installation.models))
    if installation.models or not choice.model_optional:
        try:
            model = installation.model(name)
        except UnknownNameError:
            if choice.weights is None or name is None:
                raise
            from bundler.collect.models.specs import find_spec, manifest_folders

            spec = find_spec(name, manifest_folders(choice.start)).spec
        else:
            return model.spec, model.facts, installation.root / model.path
    return spec, ModelFacts(), installation.root / WEIGHTS / spec.name


def _model_of_workspace(choice: Choice) -> tuple[ModelSpec, ModelFacts, Path]:
    """Return what would be served once it is packed, unpacked and installed."""
    from bundler.collect.models.specs import open_model

    if choice.model is None:
        raise UsageError("which model?", hint="name it: --model NAME; bundler models lists them")
    source = open_model(choice.model, workspace=choice.start)
    # As one types it where one is.
    root = Path() if choice.start.resolve() == Path.cwd() else choice.start.resolve()
    return source.spec, _facts(choice.start, source), root / WEIGHTS / source.spec.name


def _facts(root: Path, source: Any) -> ModelFacts:
    """Return what the model's files say, where they are in the workspace; else what its manifest does."""
    from bundler.collect.models.folder import FolderSource
    from bundler.errors import BundlerError

    folder = source.folder if isinstance(source, FolderSource) else root / WEIGHTS / source.spec.name
    manifests_word = ModelFacts(vision=source.spec.smoke.image)
    if not (folder / "config.json").is_file():
        return manifests_word
    from bundler.collect.models.completeness import prove
    from bundler.collect.models.reader import folder_reader

    try:
        listing = FolderSource(source.spec, folder, True).listing
        return prove(folder_reader(folder, listing), spec=source.spec)
    except BundlerError:
        return manifests_word


def _activation(software: Software, base: Mapping[str, str]) -> Mapping[str, str]:
    """Return all variables with the environment activated; ``base`` where there is none to activate."""
    from bundler.activation import activation_environment

    prefix = software.activated
    if prefix is None or not (prefix / "bin").is_dir():
        return base
    # The environment that was active before is named, so that its programs leave PATH.
    before = {name: value for name, value in os.environ.items() if name == "CONDA_PREFIX"}
    return activation_environment(prefix, {**before, **base})
