"""Every exception of bundler with its exit code; ``bundler --help`` shows their docstrings beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from bundler.common.secrets import masked
from bundler.common.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence


class BundlerError(Exception):
    """What went wrong, where, and how to mend it, in one message."""

    exit_code: ClassVar[int] = 1
    """The process's exit code; stable from version to version."""
    label: ClassVar[str] = "error"
    """The message's first word."""
    mend: ClassVar[str] = "fix: "
    """What goes before the hint, as wide as ``where``."""

    def __init__(
        self, what: str, *, where: object = None, hint: str | None = None, findings: Sequence[str] = ()
    ) -> None:
        """Keep the parts of the message.

        :param what: what went wrong, a sentence without a full stop.
        :param where: the file, address or host it went wrong at.
        :param hint: what to do about it.
        :param findings: several things that are wrong at once, a line each.
        """
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint
        self.findings = tuple(findings)

    def __str__(self) -> str:
        """Return the message as the user reads it."""
        lines = [self.what]
        lines += [f"  - {finding}" for finding in self.findings]
        if self.where is not None:
            lines.append(f"  where: {self.where}")
        if self.hint:
            lines.append(f"  {self.mend}  {self.hint}")
        return masked(printable("\n".join(lines)))


class UsageError(BundlerError):
    """The command's words are off."""

    exit_code = 2


class InputError(BundlerError):
    """A workspace, lock, model, bundle or manifest that can't be used, or isn't there."""

    exit_code = 3


class UnknownNameError(InputError):
    """No environment, model, bundle or installation of that name."""


class FetchError(BundlerError):
    """A download or a model hub failed."""

    exit_code = 4


class DamagedError(BundlerError):
    """Damaged or altered bytes."""

    exit_code = 5


class MissingVolumeError(BundlerError):
    """Volumes missing, short or swapped; nothing was written."""

    exit_code = 6


class PartialError(BundlerError):
    """Partial: all that is here was done, the same command goes on with the next disk."""

    exit_code = 7
    label = "partial"
    mend = "next:"


class PreflightError(BundlerError):
    """The host can't take it: space, inodes, file system, permissions, driver."""

    exit_code = 8


class DestinationError(BundlerError):
    """The destination is unfit or holds something else."""

    exit_code = 9


class InstallError(BundlerError):
    """The installer failed."""

    exit_code = 10


class RehearsalError(BundlerError):
    """The rehearsal failed: the environment doesn't install or import without a network."""

    exit_code = 11


class DoctorError(BundlerError):
    """Doctor or check found something that keeps the server from running."""

    exit_code = 12


class ServeError(BundlerError):
    """The server didn't come up, ended, or gave a wrong answer."""

    exit_code = 13


class NotRunningError(BundlerError):
    """No server of this installation runs."""

    exit_code = 14


class WarningsError(BundlerError):
    """Doctor found warnings, and nothing that fails."""

    exit_code = 15


class UntrustedError(BundlerError):
    """The bundle has no good signature of an allowed signer, or not the digest that was given."""

    exit_code = 16


class InterruptError(BundlerError):
    """Interrupted; the same command goes on where it stopped."""

    exit_code = 130
    """As shells count SIGINT."""
    label = "interrupted"


def exit_codes() -> dict[int, str]:
    """Return each exit code with its meaning, in order, for ``bundler --help``."""
    codes = {0: "done", BundlerError.exit_code: "an error without a code of its own"}
    pending = BundlerError.__subclasses__()
    while pending:
        kind = pending.pop()
        if "exit_code" in vars(kind):
            meaning = (kind.__doc__ or "").removesuffix(".")
            codes[kind.exit_code] = meaning[:1].lower() + meaning[1:]
        pending += kind.__subclasses__()
    return dict(sorted(codes.items()))
