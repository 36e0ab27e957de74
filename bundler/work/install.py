"""``install``, step by step: install, check, receipt. ``unpack`` ends with the same steps."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import msgspec

from bundler.common.disk_trouble import advice
from bundler.common.durable import open_to_all, sync_file_system
from bundler.errors import DestinationError, InstallError
from bundler.installation import STATE, Installation, InstalledEnvironment, now, refuse_planted, write_receipt
from bundler.store import MIRROR, Store
from bundler.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from bundler.common.progress import Reporter
    from bundler.install.installer import InstallerWord
    from bundler.workspace import EnvironmentLock


def install_environments(
    installation: Installation, names: Sequence[str], installer: InstallerWord, reporter: Reporter
) -> Installation:
    """Install environments from the installation's own store, check them, and write the receipt.

    While it runs the receipt doesn't name those that aren't finished yet, so that an interrupted install
    isn't taken for a whole one.

    :param names: environments, by name or alias.
    :returns: the installation with its new receipt.
    :raises UnknownNameError: no such environment.
    :raises InstallError: the installer or the check failed; run again, it goes on.
    :raises DestinationError: this user may not write there.
    """
    from bundler.install.choose import choose_installer
    from bundler.install.native import NativeInstaller, is_finished
    from bundler.runtime.launchers import write_launchers

    refuse_planted(installation.root)
    _require_writable(installation.root)
    recorded = {name: one.platform for name, one in installation.environments.items()}
    workspace = Workspace.load(installation.root, recorded)
    environments = list({one.name: one for one in map(workspace.environment, names)}.values())
    chosen = choose_installer(installer, root=installation.home, reporter=reporter)
    finished = {
        one.name
        for one in environments
        # Only of its own work an installer knows that it will leave it as it is.
        if chosen.name == NativeInstaller.name and is_finished(installation.root.absolute(), one)
    }
    _rewrite_receipt(installation, without={one.name for one in environments} - finished)
    chosen.install(installation.root, environments, Store.of(installation.root), reporter)
    # Before anything is imported: what a power cut left of a compiled module is found here, and made anew.
    _compile(installation, environments, reporter)
    done = [
        InstalledEnvironment(
            name=one.name,
            installer=chosen.name,
            finished=now(),
            versions=_check(installation, one, reporter),
        )
        for one in environments
    ]
    write_launchers(installation.home, installation.environments)
    for one in environments:
        # Installers keep modes of their own: rattler's records are for the owner alone.
        open_to_all(installation.prefix(one.name))
    _make_durable([installation.root, *(installation.prefix(one.name) for one in environments)])
    return _rewrite_receipt(installation, without={one.name for one in environments}, added=done)


def remove_store(installation: Installation, reporter: Reporter) -> Installation:
    """Remove the artifacts that the environments were installed from, and say what that means.

    :raises InstallError: an environment isn't installed yet, so the store is still needed.
    :raises DestinationError: this user may not write there.
    """
    _require_writable(installation.root)
    installed = {one.name for one in installation.receipt.environments}
    waiting = sorted(set(installation.environments) - installed)
    if waiting:
        raise InstallError(
            f"the store is still needed: {', '.join(waiting)} isn't installed",
            where=installation.root,
            hint="install first: bundler install",
        )
    from bundler.common.units import size_text

    folder = Store.of(installation.root).root / MIRROR
    if not folder.is_dir():
        return installation
    freed = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    gone = folder.relative_to(installation.root).as_posix() + "/"
    kept = tuple(file for file in installation.receipt.files if not file.path.startswith(gone))
    write_receipt(installation.root, msgspec.structs.replace(installation.receipt, files=kept))
    shutil.rmtree(folder)
    reporter.say(
        f"the store is removed, {size_text(freed)}: the environments stay; to install them again, "
        "or to add a delta to this installation, unpack the bundle again"
    )
    return Installation(installation.root, follow=False)


def _require_writable(root: Path) -> None:
    for folder in (root, root / STATE):
        if not os.access(folder, os.W_OK):
            raise DestinationError(
                "this user can't write to the installation",
                where=folder,
                hint="run it as the user to whom the folder belongs; what is installed runs for everybody",
            )


def _make_durable(folders: Iterable[Path]) -> None:
    """Make durable what installers wrote, which sync nothing: a receipt must outlast no environment."""
    for folder in folders:
        try:
            sync_file_system(folder)
        except OSError as problem:
            raise InstallError(
                f"what was installed can't be written to the disk: {problem.strerror}",
                where=folder,
                hint=advice(problem) or "look after the disk (dmesg); the same command goes on",
            ) from problem


def _check(installation: Installation, environment: EnvironmentLock, reporter: Reporter) -> dict[str, str]:
    """Import what the environment is for; return the versions."""
    from bundler.install.sanity import Imports, check_imports

    if environment.stack.python is None:
        return {}
    entry = installation.environments.get(environment.name)
    imports = Imports.of(environment, entry.imports if entry else None)
    versions = check_imports(installation.prefix(environment.name), imports)
    found = ", ".join(f"{name} {version}".strip() for name, version in versions.items())
    reporter.say(f"{environment.name}: imported {found or 'nothing, it names no module'}")
    return versions


def _compile(installation: Installation, environments: Iterable[EnvironmentLock], reporter: Reporter) -> None:
    """Compile the modules of the environments, and of bundler's own runtime where it is here."""
    from bundler.install.compiled import compile_modules

    prefixes = {one.name: installation.prefix(one.name) for one in environments if one.stack.python}
    for name, prefix in {**prefixes, "runtime": installation.home / "runtime"}.items():
        folders = list(prefix.glob("lib/python3*"))
        if folders:
            compile_modules(prefix / "bin" / "python", folders, name, reporter)


def _rewrite_receipt(
    installation: Installation, *, without: set[str], added: Iterable[InstalledEnvironment] = ()
) -> Installation:
    """Replace environments in the receipt as it now lies there."""
    receipt = Installation(installation.root, follow=False).receipt
    others = (one for one in receipt.environments if one.name not in without)
    write_receipt(installation.root, msgspec.structs.replace(receipt, environments=(*others, *added)))
    return Installation(installation.root, follow=False)
