"""What doctor, check, serve, smoke and systemd share: options, and what they name, opened."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bundler.errors import UnknownNameError, UsageError
from bundler.host.facts import describe
from bundler.host.surroundings import inherited
from bundler.installation import CACHE, WEIGHTS, Installation, find_installation
from bundler.model import ModelFacts, ModelSpec
from bundler.serve.launch import Served, Wishes, build
from bundler.serve.selection import (
    Software,
    choose_software,
    needs_of_launch,
    software_at,
    target_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bundler.host.facts import HostFacts
    from bundler.host.finding import Finding
    from bundler.serve.launch import ServerLaunch

Command = TypeVar("Command", bound="Callable[..., Any]")

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
    software: Software
    target: Served
    host: HostFacts
    launch: ServerLaunch


def selection_options(command: Command) -> Command:
    """``-C``, ``--env``, ``--model``, ``--python``."""
    options = (
        click.option(
            "-C",
            "--installation",
            "start",
            type=click.Path(path_type=Path, file_okay=False, exists=True),
            default=Path(),
            help="The installation.  [default: here, above, directly below, $BUNDLER_HOME]",
        ),
        click.option(
            "-e", "--env", "environment", metavar="NAME", help="The environment, where there are several."
        ),
        click.option("--model", metavar="NAME", help="The model, where there are several."),
        click.option("--python", metavar="PATH", help="Serve from an interpreter that has SGLang already."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def launch_options(command: Command) -> Command:
    """``--tp-size``, the address, the nodes, and SGLang's own flags after ``--``."""
    options = (
        click.option(
            "--tp-size",
            type=click.IntRange(min=1),
            help="GPUs over all nodes.  [default: those visible that divide the heads]",
        ),
        click.option("--host", help="0.0.0.0, or 127.0.0.1 for this host alone.  [default: the manifest's]"),
        click.option("--port", type=click.IntRange(1, 65535), help="[default: the manifest's, else 30000]"),
        click.option("--nnodes", type=click.IntRange(min=1), default=1, show_default=True, help="Nodes."),
        click.option("--node-rank", type=click.IntRange(min=0), default=0, help="This node's rank, from 0."),
        click.option("--dist-init-addr", metavar="HOST:PORT", help="The first node's address."),
        click.option(
            "--keep-env",
            multiple=True,
            metavar="NAME",
            help="Pass on this proxy, PYTHON*, LD_*, PIP_* or CONDA_* variable too; repeatable.",
        ),
        click.argument("extra", nargs=-1, type=click.UNPROCESSED, metavar="[-- SGLANG FLAGS]"),
    )
    for option in reversed(options):
        command = option(command)
    return command


def wishes_of(options: Mapping[str, Any]) -> Wishes:
    """Return the launch options as wishes."""
    names = ("tp_size", "host", "port", "nnodes", "node_rank", "dist_init_addr", "keep_env", "extra")
    return Wishes(**{name: options[name] for name in names})


def choice_of(options: Mapping[str, Any], **more: Any) -> Choice:
    """Return the selection options as a choice."""
    names = ("start", "environment", "model", "python")
    return Choice(**{name: options[name] for name in names}, **more)


def open_choice(choice: Choice, host: HostFacts | None = None) -> Opened:
    """Open what the user named.

    :param host: a described host; this one where not given.
    :raises InputError: it isn't there.
    :raises UsageError: it doesn't fit together.
    """
    try:
        installation: Installation | None = find_installation(choice.start)
    except UnknownNameError:
        if not choice.dry_run or not (choice.start / "pixi.toml").is_file():
            raise
        installation = None
    if installation is None:
        software, target = _in_workspace(choice)
    else:
        software = choose_software(installation, choice.environment, choice.python, choice.wishes.keep_env)
        target = _in_installation(installation, choice, software)
    if choice.weights is not None:
        target = replace(target, weights=choice.weights.absolute())
    host = host or describe()
    activation = _activation(software, inherited(os.environ, choice.wishes.keep_env))
    launch = build(target, choice.wishes, host, os.environ, activation)
    return Opened(installation=installation, software=software, target=target, host=host, launch=launch)


def findings_of(opened: Opened, *, deep: bool = False, here: bool = True, key: bool = False) -> list[Finding]:
    """Compare the host with everything that serving needs.

    :param deep: hash every byte of the weights.
    :param here: whether the host is this one, so that the installation can be looked at.
    :param key: whether clients must give a key.
    """
    from bundler.host.doctor import examine
    from bundler.serve.environment_checks import (
        check_home,
        check_openness,
        check_place,
        check_speculation,
        look,
    )

    findings = examine(opened.host, needs_of_launch(opened.target, opened.launch, opened.software))
    if opened.target.spec is not CHECKED_ALONE:
        findings.append(check_openness(opened.launch, key=key))
        findings += check_speculation(opened.launch)
    if not here:
        return findings
    findings += check_home(opened.launch)
    software, launch = opened.software, opened.launch
    place = look(
        software.python,
        software.prefix,
        launch.environment(os.environ),
        launch.caches,
        software.sglang,
        probed=software.interpreter is not None,
    )
    findings += check_place(place)
    if opened.target.spec is not CHECKED_ALONE:
        findings += _weights(opened, deep=deep)
    return findings


def _weights(opened: Opened, *, deep: bool) -> list[Finding]:
    from bundler.cli.progress import reporter
    from bundler.serve.weights import check_folder, check_weights

    target, installation = opened.target, opened.installation
    weights = opened.launch.weights
    if installation is None or not weights.is_relative_to(installation.root):
        return list(check_folder(weights))
    folder = weights.relative_to(installation.root).as_posix()
    files = installation.receipt.files
    return list(check_weights(target.root, folder, files, deep=deep, reporter=reporter()))


def _in_installation(installation: Installation, choice: Choice, software: Software) -> Served:
    if choice.model_optional and not installation.models:
        return _bare_target(installation, software, CHECKED_ALONE)
    if choice.model_optional and choice.model is None and len(installation.models) > 1:
        return target_of(installation, next(iter(installation.models)), software)
    try:
        return target_of(installation, choice.model, software)
    except UnknownNameError:
        if choice.weights is None or choice.model is None:
            raise
        from bundler.collect.models.specs import find_spec, manifest_folders

        return _bare_target(
            installation, software, find_spec(choice.model, manifest_folders(choice.start)).spec
        )


def _bare_target(installation: Installation, software: Software, spec: ModelSpec) -> Served:
    from bundler.serve.environment_checks import writable_folder

    return Served(
        root=installation.root,
        spec=spec,
        facts=ModelFacts(),
        weights=installation.root / WEIGHTS / spec.name,
        environment=software.environment,
        prefix=software.prefix,
        python=software.python,
        sglang=software.sglang,
        caches=writable_folder(installation.root, CACHE),
    )


def _in_workspace(choice: Choice) -> tuple[Software, Served]:
    """Open a workspace: what would be served once it is packed, unpacked and installed."""
    from bundler.collect.models.specs import open_model
    from bundler.workspace import Workspace, prefix_of

    if choice.model is None:
        raise UsageError("which model?", hint="name it: --model NAME; bundler models lists them")
    source = open_model(choice.model, workspace=choice.start)
    lock = Workspace.load(choice.start).environment(choice.environment or "default")
    prefix = prefix_of(choice.start.absolute(), lock.name)
    software = Software(
        environment=lock.name,
        prefix=prefix,
        python=prefix / "bin" / "python",
        cuda=lock.stack.cuda,
        torch=lock.stack.torch,
        sglang=lock.stack.sglang,
        glibc=lock.stack.glibc,
        cudnn=lock.stack.cudnn,
    )
    if choice.python is not None:
        software = software_at(choice.python, choice.wishes.keep_env)
    # As one types it where one is.
    root = Path() if choice.start.resolve() == Path.cwd() else choice.start.resolve()
    weights = root / WEIGHTS / source.spec.name
    target = Served(
        root=choice.start.resolve(),
        spec=source.spec,
        facts=_facts(choice.start, source),
        weights=weights if choice.weights is None else choice.weights,
        environment=software.environment,
        prefix=software.prefix,
        python=software.python,
        sglang=software.sglang,
        caches=choice.start.absolute() / CACHE,
        pixi=choice.python is None,
    )
    return software, target


def _facts(root: Path, source: Any) -> ModelFacts:
    """Return what the model's files say, where they are in the workspace; else what its manifest does."""
    from bundler.collect.models.folder import FolderSource
    from bundler.errors import BundlerError

    folder = source.folder if isinstance(source, FolderSource) else root / WEIGHTS / source.spec.name
    manifests_word = ModelFacts(vision=source.spec.smoke.image)
    if not (folder / "config.json").is_file():
        return manifests_word
    from bundler.collect.models.completeness import folder_reader, prove

    try:
        listing = FolderSource(source.spec, folder, True).listing
        return prove(folder_reader(folder, listing), spec=source.spec, allow_pickle=True)
    except BundlerError:
        return manifests_word


def _activation(software: Software, base: Mapping[str, str]) -> Mapping[str, str]:
    """Return all variables with the environment activated; ``base`` where there is none to activate."""
    from bundler.activation import activation_environment

    if software.prefix is None or not (software.prefix / "bin").is_dir():
        return base
    # The environment that was active before is named, so that its programs leave PATH.
    before = {name: value for name, value in os.environ.items() if name == "CONDA_PREFIX"}
    return activation_environment(software.prefix, {**before, **base})
