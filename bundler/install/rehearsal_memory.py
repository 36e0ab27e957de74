"""Which rehearsals passed in this store, so that the same one isn't done twice.

A rehearsal's outcome is a function of the lock, the artifacts, the installer, the imports and bundler. What
was found out is kept in the store's memory; lost, it costs another rehearsal.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from bundler import __version__
from bundler.errors import InstallError
from bundler.install.choose import choose_installer
from bundler.install.installer import Caches
from bundler.install.sanity import Imports
from bundler.manifest import Rehearsal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bundler.install.installer import InstallerWord
    from bundler.store import Store
    from bundler.workspace import EnvironmentLock, Workspace

TABLE = "rehearsed"
"""The table of :meth:`bundler.store.Store.table`: what was rehearsed, with when and how it passed."""


@dataclass(frozen=True)
class RehearsalMemory:
    """What is remembered of one rehearsal."""

    store: Store
    key: str
    """Digest of all that the outcome depends on; empty: it can't be told, nothing is remembered."""

    @classmethod
    def of(
        cls,
        workspace: Workspace,
        environments: Sequence[EnvironmentLock],
        store: Store,
        installer: InstallerWord,
        imports: Mapping[str, Sequence[str]],
    ) -> RehearsalMemory:
        """Return the memory of a rehearsal that is about to begin."""
        artifacts = [one for environment in environments for one in environment.artifacts]
        try:
            name = choose_installer(installer).name
        except InstallError:
            return cls(store, "")  # the rehearsal itself says why
        if any(one.pinned is None for one in artifacts):
            return cls(store, "")
        facts = {
            "bundler": __version__,
            "installer": name,
            "files": [hashlib.sha256(path.read_bytes()).hexdigest() for path in workspace.files],
            "environments": [
                [
                    one.name,
                    one.platform,
                    *Imports.of(one, tuple(imports.get(one.name, ()))).every,
                ]
                for one in environments
            ],
        }
        return cls(store, hashlib.sha256(msgspec.json.encode(facts)).hexdigest())

    def recall(self, environments: Sequence[EnvironmentLock]) -> tuple[Rehearsal, datetime] | None:
        """Return how and when it passed, where the store still holds all of it, whole.

        The caches that a rehearsal fills must be there too: whoever rehearses may want them.
        """
        row = self.store.table(TABLE).get(self.key) if self.key else None
        caches = Caches.of_store(self.store.root)
        if not isinstance(row, list) or len(row) < 3 or not (caches.conda.exists() and caches.uv.exists()):
            return None
        if self.store.missing(one for environment in environments for one in environment.artifacts):
            return None
        when, installer, isolation, *imports = row
        passed = Rehearsal(
            status="passed",
            installer=str(installer),
            isolation=str(isolation),
            imports=tuple(map(str, imports)),
        )
        return passed, datetime.fromtimestamp(int(when), UTC)

    def keep(self, passed: Rehearsal) -> None:
        """Remember that it passed just now."""
        if self.key and passed.status == "passed":
            row: list[int | str] = [
                int(time.time()),
                passed.installer or "",
                passed.isolation or "",
                *passed.imports,
            ]
            self.store.table(TABLE).update({self.key: row})
