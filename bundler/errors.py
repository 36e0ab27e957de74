"""Every exception of bundler, with its exit code and the way to mend it.

::

    BundlerError                 1  a defect of bundler itself, or an error without a class of its own
    ├── UsageError               2  arguments that don't fit together (click's own code)
    ├── InputError               3  a workspace, lock, model or manifest that can't be used
    │   └── UnknownNameError     3  no such environment, model, bundle or installation
    ├── FetchError               4  a download or a hub that failed
    ├── DamagedError             5  bytes that differ from what was promised
    ├── MissingVolumeError       6  volumes missing, short or swapped, seen before anything was written
    ├── PartialError             7  all that is here was done; another volume or disk is needed
    ├── PreflightError           8  the host can't take it: space, inodes, file system, permissions, driver
    ├── DestinationError         9  the destination is not fit or holds something else
    ├── InstallError            10  the installer failed
    ├── RehearsalError          11  the environment doesn't install or import without a network
    ├── DoctorError             12  a check of the host failed
    ├── ServeError              13  the server didn't come up, ended, or gave a wrong answer
    ├── NotRunningError         14  no server runs here
    ├── WarningsError           15  checks of the host warned, and none failed
    └── UntrustedError          16  no good signature of an allowed signer, or not the digest that was given

Interrupted by the user: 130.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from bundler.common.secrets import masked

if TYPE_CHECKING:
    from collections.abc import Sequence

INTERRUPTED = 130
"""Exit code after SIGINT, as shells count it."""


class BundlerError(Exception):
    """What went wrong, where, and how to mend it, in one message."""

    exit_code: ClassVar[int] = 1
    """The process's exit code; stable from version to version."""
    meaning: ClassVar[str] = "an error without a code of its own"
    """One line for ``bundler --help``."""
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
        return masked("\n".join(lines))


class UsageError(BundlerError):
    """Arguments that don't fit together."""

    exit_code = 2
    meaning = "the command's words are off"


class InputError(BundlerError):
    """A workspace, lock, model or manifest that can't be used."""

    exit_code = 3
    meaning = "a workspace, lock, model, bundle or manifest that can't be used, or isn't there"


class UnknownNameError(InputError):
    """No environment, model, bundle or installation of that name."""


class FetchError(BundlerError):
    """A download or a hub that failed, after retries."""

    exit_code = 4
    meaning = "a download or a model hub failed"


class DamagedError(BundlerError):
    """Bytes that differ from what the lock, the hub or the manifest promised."""

    exit_code = 5
    meaning = "damaged or altered bytes"


class MissingVolumeError(BundlerError):
    """Volumes missing, short or swapped; nothing was written."""

    exit_code = 6
    meaning = "volumes missing, short or swapped; nothing was written"


class PartialError(BundlerError):
    """All that is here was done; the rest needs another volume or disk."""

    exit_code = 7
    meaning = "partial: all that is here was done, the same command goes on with the next disk"
    label = "partial"
    mend = "next:"


class PreflightError(BundlerError):
    """The host can't take it: space, inodes, file system, permissions, driver."""

    exit_code = 8
    meaning = "the host can't take it: space, inodes, file system, permissions, driver"


class DestinationError(BundlerError):
    """The destination is unfit or holds something else."""

    exit_code = 9
    meaning = "the destination is unfit or holds something else"


class InstallError(BundlerError):
    """The installer failed; running the same command again is safe."""

    exit_code = 10
    meaning = "the installer failed"


class RehearsalError(BundlerError):
    """The environment doesn't install or import without a network."""

    exit_code = 11
    meaning = "the rehearsal failed: the environment doesn't install or import without a network"


class DoctorError(BundlerError):
    """A check of the host failed."""

    exit_code = 12
    meaning = "doctor or check found something that keeps the server from running"


class ServeError(BundlerError):
    """The server didn't come up, ended, or gave a wrong answer."""

    exit_code = 13
    meaning = "the server didn't come up, ended, or gave a wrong answer"


class NotRunningError(BundlerError):
    """No server of this installation runs."""

    exit_code = 14
    meaning = "no server of this installation runs"


class WarningsError(BundlerError):
    """Checks of the host warned, and none failed."""

    exit_code = 15
    meaning = "doctor found warnings, and nothing that fails"


class UntrustedError(BundlerError):
    """A bundle without a good signature of an allowed signer, or of another digest than the one given."""

    exit_code = 16
    meaning = "the bundle has no good signature of an allowed signer, or not the digest that was given"


def exit_codes() -> dict[int, str]:
    """Return each exit code with its meaning, in order, for ``bundler --help``."""
    codes = {0: "done", INTERRUPTED: "interrupted; the same command goes on where it stopped"}
    pending: list[type[BundlerError]] = [BundlerError]
    while pending:
        kind = pending.pop()
        if "exit_code" in vars(kind):
            codes[kind.exit_code] = kind.meaning
        pending += kind.__subclasses__()
    return dict(sorted(codes.items()))
