"""Which installer makes the environments: pixi where a fit one is found, else the native one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bundler.common.progress import SILENT
from bundler.errors import InstallError
from bundler.install.native import NativeInstaller
from bundler.install.pixi import PixiInstaller, find_pixi

if TYPE_CHECKING:
    from pathlib import Path

    from bundler.common.progress import Reporter
    from bundler.install.installer import Caches, Installer, InstallerWord


def choose_installer(
    word: InstallerWord = "auto",
    *,
    root: Path | None = None,
    caches: Caches | None = None,
    reporter: Reporter = SILENT,
) -> Installer:
    """Return the installer of a name, or the best that is here.

    :param word: ``pixi``, ``native`` or ``auto``.
    :param root: the installation, whose own pixi is preferred.
    :param caches: where to cache; the installation's own folders where not given.
    :param reporter: told why pixi isn't taken.
    :raises InstallError: it isn't here, or it is too old.
    """
    if word == "native":
        return NativeInstaller.find(caches)
    try:
        return PixiInstaller(find_pixi(root), caches)
    except InstallError as problem:
        if word == "pixi":
            raise
        reporter.say(f"installing natively: {problem.what}")
    try:
        return NativeInstaller.find(caches)
    except InstallError as problem:
        raise InstallError(
            "there is no installer here: neither pixi nor what the native one needs",
            findings=[problem.what],
            hint="start with the bundle's install.sh, which brings pixi; or name one in BUNDLER_PIXI",
        ) from problem
